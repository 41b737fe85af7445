"""A batch over all processes: how they share it, found by dealing out rows, and what is said where they cannot."""

import re

import pytest

from nanohf.errors import RecipeError
from nanohf.recipe.loading import load_recipe
from nanohf.scaling.step_batch import StepBatch

CHAT = """
mixture: [{dataset: builtin, config: problems, rows: 5, converter: gsm8k}]
eval_mixture: [{dataset: builtin, config: problems, rows: 5, converter: gsm8k}]
"""


def dealt(rows: int, micro_batch: int, processes: int) -> int | None:
    """Micro-batches of each process when each takes one in turn until no row is left; None where some go short."""
    taken = 0
    while rows > 0:
        rows -= micro_batch * processes
        taken += 1
    return taken if rows == 0 else None


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("micro_batch", [1, 4, 6])
@pytest.mark.parametrize("completions", [1, 4])
def test_it_is_what_dealing_gives(processes, micro_batch, completions):
    shared = {v: dealt(v * completions, micro_batch, processes) for v in range(1, 100)}
    fitting = [v for v, taken in shared.items() if taken]
    for value in range(1, fitting[-1]):
        batch = StepBatch("problems_per_step", value, completions=completions)
        if shared[value]:
            assert batch.accumulation(micro_batch, processes) == shared[value]
            continue
        with pytest.raises(RecipeError) as error:
            batch.accumulation(micro_batch, processes)
        tried = re.search(r"Try (\d+)(?: or (\d+))?(?:, or per_device_train_batch_size=(\d+))?\.$", str(error.value))
        *nearest, smaller = tried.groups()
        below, above = max((v for v in fitting if v < value), default=None), min(v for v in fitting if v > value)
        assert [int(v) for v in nearest if v] == [v for v in (below, above) if v]
        smaller_ones = [n for n in range(1, micro_batch) if dealt(value * completions, n, processes)]
        assert smaller == (str(max(smaller_ones)) if smaller_ones else None)


@pytest.mark.parametrize(
    ("batch", "micro_batch", "processes", "says"),
    [
        (
            StepBatch("batch_tokens", 8_192, tokens_per_row=1_024),
            1,
            16,
            "batch_tokens=8,192 is not a multiple of 1 row x 1,024 tokens x 16 processes = 16,384. Try 16,384.",
        ),
        (
            StepBatch("batch_tokens", 20_000, tokens_per_row=1_024),
            4,
            2,
            "batch_tokens=20,000 is not a multiple of 4 rows x 1,024 tokens x 2 processes = 8,192. "
            "Try 16,384 or 24,576.",
        ),
        (
            StepBatch("conversations_per_step", 32),
            5,
            1,
            "conversations_per_step=32 is not a multiple of 5 rows. Try 30 or 35, or per_device_train_batch_size=4.",
        ),
        (
            StepBatch("problems_per_step", 16, completions=16),
            64,
            8,
            "problems_per_step=16 x num_generations=16 = 256 rows is not a multiple of 64 rows x 8 processes = 512. "
            "Try 32, or per_device_train_batch_size=32.",
        ),
    ],
)
def test_a_refusal_has_the_value_the_rule_and_what_fits(batch, micro_batch, processes, says):
    with pytest.raises(RecipeError) as error:
        batch.accumulation(micro_batch, processes)
    assert str(error.value) == says


@pytest.mark.parametrize(
    ("stage", "keys", "says"),
    [
        ("sft", "packing: true", "batch_tokens is missing. With packing: true it is the batch of all processes"),
        ("sft", "packing: false", "conversations_per_step is missing. With packing: false"),
        ("sft", "conversations_per_step: 8\nbatch_tokens: 8192", "batch_tokens=8,192 does nothing with packing: false"),
        (
            "sft",
            "packing: true\nbatch_tokens: 8192\nconversations_per_step: 8",
            "conversations_per_step=8 does nothing",
        ),
        ("sft", "packing: true\nbatch_tokens: 8192\nmax_length: null", "max_length=null: packed rows need a length"),
        ("sft", "packing: true\nbatch_tokens: 0", "batch_tokens=0 must be at least 1"),
        ("sft", "conversations_per_step: 12", "12 is not a multiple of 8 rows. Try 8 or 16, or per_device_train_batch"),
        ("sft", "gradient_accumulation_steps: 8", "Write the batch of all processes: batch_tokens (with packing"),
        ("midtrain", "gradient_accumulation_steps: 8", "or conversations_per_step (without)"),
        ("grpo", "gradient_accumulation_steps: 8", "Write the batch of all processes: problems_per_step"),
        ("grpo", "steps_per_generation: 8", "Write generation_batch_size, the completions of one generation"),
        ("grpo", "problems_per_step: 9\nnum_generations: 3", "problems_per_step=9 x num_generations=3 = 27 rows"),
        ("pretrain", "gradient_accumulation_steps: 8", "Write the batch of all processes: batch_tokens"),
    ],
)
def test_recipes_that_are_refused(tmp_path, stage, keys, says):
    (tmp_path / "recipe.yaml").write_text(f"{keys}\n{CHAT if stage in ('midtrain', 'sft') else ''}")
    with pytest.raises(RecipeError) as error:
        load_recipe(stage, ["--config", str(tmp_path / "recipe.yaml")])
    assert says in str(error.value)
    assert "unknown key" not in str(error.value)
