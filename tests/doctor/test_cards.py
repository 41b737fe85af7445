"""The large recipes fit the cards that they name, by the formula that tests/scaling holds against the model."""

import pytest

from nanohf.doctor.resource_checks import model_size, needed, work_of
from nanohf.recipe.recipe_folder import find_recipe_folder, load_all, stage_arguments
from nanohf.recipe.stage_names import MODEL_STAGES, RESULT_STAGES

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
