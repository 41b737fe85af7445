"""The large recipes fit the cards that they name, by the formula that tests/scaling holds against the model."""

import pytest

from nanohf.cli import main
from nanohf.plan.stage_memory import card_lines, model_size, needed, work_of
from nanohf.recipe.recipe_folder import find_recipe_folder, load_all, stage_arguments
from nanohf.recipe.stage_names import MODEL_STAGES, RESULT_STAGES
from nanohf.scaling.cards import read_card

CARDS = {"d12": 24e9, "d20": 80e9}  # bytes


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("grpo", ["grpo", "grpo_fast"])
def test_every_stage_fits_with_a_tenth_to_spare(name, grpo, tmp_path):
    folder = find_recipe_folder(f"recipes/{name}")
    changes = [f"grpo={grpo}"] if grpo != "grpo" else []
    recipes = load_all({s: stage_arguments(folder, tmp_path, s, changes, None) for s in RESULT_STAGES})
    size = model_size(recipes)
    for stage in MODEL_STAGES:
        batch, sequences = work_of(stage, recipes[stage], bf16=True)
        need = needed(size, batch, sequences)
        assert need < 0.9 * CARDS[name], f"{stage}: {need / 1e9:.1f} GB"
        assert need > size.bytes.total


def test_plan_says_what_fits_without_the_hardware(capsys):
    assert main(["plan", "recipes/d12", "--hardware", "L4"]) == 0
    lines = capsys.readouterr().out.partition("memory of one process on l4 x 1")[2].splitlines()[1:5]
    assert [line.split()[0] for line in lines] == list(MODEL_STAGES)
    assert all("fits" in line for line in lines)
    assert main(["plan", "recipes/d20", "--hardware", "t4"]) == 0
    assert "DOES NOT FIT; not even one row does" in capsys.readouterr().out


def test_several_cards_share_what_is_generated():
    folder = find_recipe_folder("recipes/d20")
    recipes = load_all({s: stage_arguments(folder, folder, s, [], None) for s in RESULT_STAGES})
    one, eight = (card_lines(recipes, read_card(f"h100{n}")) for n in ("", "x8"))
    assert one[:3] == eight[:3]
    peaks = [float(lines[3].split()[1]) for lines in (one, eight)]
    keys_and_values = 2 * 4 * 20 * 1280 * 256 * 512 / 1e9  # of 256 completions, fp32
    assert peaks[0] - peaks[1] == pytest.approx(keys_and_values * 7 / 8, abs=0.1)


@pytest.mark.parametrize("name", ["h101", "h100x0", "h100x", "x8", "h100xx8", "-1"])
def test_unknown_hardware_is_refused_with_the_names(name, capsys):
    assert main(["plan", "recipes/d12", f"--hardware={name}"]) == 2
    assert "the cards are t4, l4" in capsys.readouterr().err


def test_hardware_is_for_a_recipe(capsys):
    assert main(["plan", "--depth", "4", "--hardware", "l4"]) == 2
    assert "--hardware l4 is for a recipe" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["midtrain", "sft", "grpo"])
def test_layers_are_computed_again_only_where_the_recipe_says_so(name, tmp_path):
    """TRL's own default is to do so, ours is not."""
    folder = find_recipe_folder("recipes/d12")
    for changes, expected in (([], False), ([f"{name}.activation_checkpointing=true"], True)):
        recipe = load_all({name: stage_arguments(folder, tmp_path, name, changes, None)})[name]
        assert work_of(name, recipe, bf16=True)[0].checkpointing is expected
