"""Every shipped recipe means the same on 1, 2 and 8 processes: what a step reads, how many steps, at which rates.

The numbers are by hand: rows per step x max_length as the recipes have them on the machine each was made for, tokens of
the sources as in tests/plan, problems // 16, and learning rates by docs/pretrain.md.
"""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from transformers import TrainingArguments

from nanohf.errors import RecipeError
from nanohf.pipeline import check_batches
from nanohf.recipe.loading import load_recipe
from nanohf.train import trl_arguments
from nanohf.train.post_training import lr_scale_of
from nanohf.train.pretrain_horizon import derive_horizon

RECIPES = Path(__file__).parents[2] / "recipes"
# Of a stage: tokens (or word problems) per step, steps, factor on the learning rates.
GRPO = (16, 443, 0.05)
SMALL = (16, 100, 0.05)
MEANING = {
    "demo": {
        "pretrain": (8_192, 250, 1.246),
        "midtrain": (8_192, 124, 1.0),
        "sft": (8_192, 104, 0.1),
        "grpo": (16, 160, 0.07),
        "grpo_fast": (16, 160, 0.07),
    },
    "d1": {
        "pretrain": (8_192, 3_960, 0.5148),
        "midtrain": (8_192, 500, 0.9983),
        "sft": (8_192, 250, 0.1246),
        "grpo": (16, 50, 0.05),
        "grpo_fast": (16, 50, 0.05),
    },
    "d2": {
        "pretrain": (16_384, 2_160, 0.7081),
        "midtrain": (8_192, 1_084, 0.7795),
        "sft": (8_192, 569, 0.0958),
        "grpo": SMALL,
        "grpo_fast": SMALL,
    },
    "d3": {
        "pretrain": (16_384, 2_952, 0.6407),
        "midtrain": (16_384, 542, 1.102),
        "sft": (16_384, 285, 0.1355),
        "grpo": SMALL,
        "grpo_fast": SMALL,
    },
    "d4": {
        "pretrain": (16_384, 5_376, 0.5289),
        "midtrain": (16_384, 542, 1.102),
        "sft": (16_384, 285, 0.1355),
        "grpo": SMALL,
        "grpo_fast": SMALL,
    },
    "d12": {
        "pretrain": (524_288, 5_160, 1.0),
        "midtrain": (131_072, 3_375, 0.8926),
        "sft": (16_384, 687, 0.02),
        "grpo": GRPO,
        "grpo_fast": GRPO,
    },
    "d20": {
        "pretrain": (524_288, 21_400, 1.0),
        "midtrain": (524_288, 844, 1.0),
        "sft": (16_384, 687, 0.02),
        "grpo": GRPO,
        "grpo_fast": GRPO,
    },
}
TOKENS = {  # of a mixture
    "midtrain": {"demo": 1_014_919, "d12": 442_240_431, "d20": 442_240_431, "others": 8_872_794},
    "sft": {"demo": 845_483, "d12": 11_253_383, "d20": 11_253_383, "others": 4_659_150},
}
# Micro-batches that are too large for so many processes, and the largest that fit.
REFUSED = {
    ("demo", "pretrain", 8): 4,  # 8,192 tokens / 256 / 8
    ("d1", "pretrain", 2): 8,  # 8,192 tokens / 512 / 2
    ("d1", "pretrain", 8): 2,
    **{(name, "pretrain", 8): 4 for name in ("d2", "d3", "d4")},  # 16,384 tokens / 512 / 8
    **{(name, "grpo", 8): 32 for name in ("demo", "d1", "d2", "d3", "d4")},  # 256 completions / 8
    **{(name, "grpo_fast", 8): 16 for name in ("demo", "d1", "d2", "d3", "d4")},  # 128 / 8
}


@pytest.fixture
def on(monkeypatch):
    """on(processes): as if so many had been launched."""

    def on(processes: int) -> None:
        monkeypatch.setattr(trl_arguments, "launched_processes", lambda: processes)
        monkeypatch.setattr(TrainingArguments, "world_size", processes)

    return on


def meaning(name: str, file: str, processes: int, *changes: str) -> tuple[int, int, float]:
    """What the trainer is given, and what follows from it."""
    stage = file.partition("_")[0]
    recipe = load_recipe(stage, ["--config", str(RECIPES / name / f"{file}.yaml"), *changes])
    if stage == "pretrain":
        tokenizer = load_recipe("tokenizer", ["--config", str(RECIPES / name / "tokenizer.yaml")]).settings
        horizon = derive_horizon(recipe.settings, tokenizer.vocab_size, processes)
        tokens = horizon.rows * recipe.settings.max_length * processes * horizon.accumulation
        assert tokens == horizon.batch_tokens
        return tokens, horizon.steps, horizon.lr_scale
    args = trl_arguments.training_arguments(recipe, "unused")
    rows = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
    if stage == "grpo":
        assert args.generation_batch_size == rows
        steps = args.max_steps if args.max_steps > 0 else 7_099 // (rows // args.num_generations)
        return rows // args.num_generations, steps, recipe.settings.lr_scale
    tokens = rows * args.max_length
    given = TOKENS[stage].get(name, TOKENS[stage]["others"])
    steps = args.max_steps if args.max_steps > 0 else -(-given // tokens)
    return tokens, steps, lr_scale_of(recipe.settings, args, given, rows=1)


@pytest.mark.parametrize("processes", [1, 2, 8])
@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in MEANING.items() for file in files])
def test_a_recipe_means_the_same(name, file, processes, on):
    on(processes)
    changes: list[str] = []
    if fits := REFUSED.get((name, file, processes)):
        with pytest.raises(RecipeError, match=rf"per_device_train_batch_size={fits}\.$"):
            meaning(name, file, processes)
        changes = ["--per_device_train_batch_size", str(fits)]
    tokens, steps, rate = meaning(name, file, processes, *changes)
    expected = MEANING[name][file]
    assert (tokens, steps) == expected[:2]
    assert rate == pytest.approx(expected[2], rel=1e-3)


def test_all_shipped_recipes_are_in_the_table():
    assert set(MEANING) == {path.parent.name for path in RECIPES.glob("*/sft.yaml")} - {"base"}
    others = {"tokenizer", "evaluate"}
    assert all(
        set(files) == {p.stem for p in (RECIPES / name).glob("*.yaml")} - others for name, files in MEANING.items()
    )


@pytest.mark.parametrize(
    ("processes", "changes", "says"),
    [
        (
            2,
            ["--batch_tokens", "5120"],
            "batch_tokens=5,120 is not a multiple of 1 row x 1,024 tokens x 2 processes = 2,048. Try 4,096 or 6,144.",
        ),
        (
            3,
            [],
            "batch_tokens=8,192 is not a multiple of 1 row x 1,024 tokens x 3 processes = 3,072. Try 6,144 or 9,216.",
        ),
    ],
)
def test_what_the_processes_cannot_share(on, processes, changes, says):
    on(processes)
    with pytest.raises(RecipeError, match=re.escape(says)):
        meaning("demo", "sft", processes, *changes)


@pytest.mark.parametrize(
    ("recipe", "processes", "says"),
    [
        ("d4", 8, "batch_tokens=16,384 is not a multiple of 16 rows x 512 tokens x 8 processes = 65,536"),
        ("d1", 2, "batch_tokens=8,192 is not a multiple of 16 rows x 512 tokens x 2 processes = 16,384"),
    ],
)
def test_a_batch_by_the_horizon_is_refused_before_the_tokenizer_is_trained(tmp_path, recipe, processes, says):
    stages = ("tokenizer", "pretrain")
    loaded = {s: load_recipe(s, ["--config", f"recipes/{recipe}/{s}.yaml", "--run_dir", str(tmp_path)]) for s in stages}
    with pytest.raises(RecipeError) as error:
        check_batches(loaded, list(stages), processes)
    assert says in str(error.value)
    check_batches(loaded, list(stages), 1)


@pytest.mark.parametrize("afresh", [False, True])
def test_an_interrupted_stage_has_its_checkpoints_batch_unless_it_begins_again(tmp_path, afresh):
    grpo = load_recipe("grpo", ["--config", "recipes/demo/grpo.yaml", "--run_dir", str(tmp_path)])
    (tmp_path / "checkpoints/grpo/checkpoint-4").mkdir(parents=True)
    with pytest.raises(RecipeError, match="not a multiple") if afresh else nullcontext():
        check_batches({"grpo": grpo}, ["grpo"], 3, afresh)


def test_a_generation_is_shared_too(tmp_path):
    keys = ["--generation_batch_size", "96", "--per_device_train_batch_size", "8", "--num_generations", "4"]
    argv = ["--config", "recipes/demo/grpo.yaml", "--run_dir", str(tmp_path), *keys, "--save_steps", "60"]
    grpo = {"grpo": load_recipe("grpo", argv)}
    check_batches(grpo, ["grpo"], 4)
    with pytest.raises(RecipeError, match=r"generation_batch_size=96 is not a multiple of 8 rows x 8 processes = 64"):
        check_batches(grpo, ["grpo"], 8)
