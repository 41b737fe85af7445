"""How much text a model wants, and the steps every stage takes over it: `nanohf plan --depth 4`."""

import math
from dataclasses import dataclass

from nanohf.scaling.parameters import Parameters, require_positive

TOKENS_PER_PARAMETER = 20.0  # Chinchilla, Hoffmann et al. 2022 (arXiv:2203.15556), on total parameters
CHARS_PER_TOKEN = 4.8  # nanochat's figure for its vocabulary of 65,536; a smaller one has fewer: measure it
CHARS_PER_SHARD = 250_000_000  # nanochat's pretraining shards: one parquet file of about 100 MB
TUNED_BATCH = 2**19  # where nanochat's learning rates are best (2025-11)
TUNED_HORIZON = 2_705_326_080  # 20 tokens for each of the 135,266,304 parameters of depth 12
TOKENIZER_CHARS = 2_000_000_000  # nanochat's tok_train --max_chars


@dataclass(frozen=True)
class StageInputs:
    """What the steps after pretraining follow from. Defaults: nanochat's of 2025-11, one epoch each."""

    midtrain_rows: int = 850_000  # SmolTalk 460k, MMLU 100k, GSM8K 8k, identity 2 x 1k, spelling 200k + 80k
    midtrain_batch_tokens: int = 2**19
    midtrain_epochs: int = 1
    sft_rows: int = 23_000  # ARC 2.3k + 1.1k, GSM8K 8k, SmolTalk 10k, identity 1k, spelling 300 + 300
    sft_rows_per_step: int = 32
    sft_epochs: int = 1
    mean_row_tokens: int = 600  # an assumption, not measured: mean length of a conversation in both mixtures
    grpo_problems: int = 7_473  # GSM8K train
    grpo_problems_per_step: int = 16
    grpo_completions: int = 16  # of each problem
    grpo_completion_tokens: int = 256  # the limit; most completions are shorter
    grpo_epochs: int = 1

    def __post_init__(self):
        for name, value in vars(self).items():
            require_positive(name, value, "Give 1 or more.")


@dataclass(frozen=True)
class Stage:
    """One stage's work. `steps` is None where nothing is optimized; `tokens` is None there too."""

    name: str
    steps: int | None
    tokens: int | None
    steps_from: str
    tokens_from: str = ""


@dataclass(frozen=True)
class Pretraining:
    """How long pretraining is and how fast it learns, each number beside what it follows from."""

    tokens: int  # of the horizon; the steps may take a little less
    tokens_from: str
    batch_tokens: int  # of a step, over all processes
    batch_from: str
    steps: int
    lr_scale: float  # on every learning rate
    lr_from: str


def pretraining(
    parameters: Parameters,
    *,
    tokens_per_parameter: float = TOKENS_PER_PARAMETER,
    tokens_per_scaling_parameter: float | None = None,
    batch_tokens: int | None = None,
    micro_batch_tokens: int = 1,
    max_steps: int = -1,
    lr_scale: float | None = None,
) -> Pretraining:
    """Pretraining from the model's size; whatever is given counts instead of its rule.

    tokens_per_scaling_parameter: the horizon by block matrices and lm_head alone; nanochat's of 2026-07 is 12.
    micro_batch_tokens: of one process; the rule's batch is made a multiple of it, whatever the number of processes.
    """
    if tokens_per_scaling_parameter is None:
        require_positive("tokens_per_parameter", tokens_per_parameter, "Chinchilla's ratio is 20.")
        tokens = round(tokens_per_parameter * parameters.total)
        tokens_from = f"{tokens_per_parameter} x {parameters.total:,} parameters"
    else:
        require_positive("tokens_per_scaling_parameter", tokens_per_scaling_parameter, "nanochat's is 12.")
        tokens = round(tokens_per_scaling_parameter * parameters.scaling)
        tokens_from = f"{tokens_per_scaling_parameter} x {parameters.scaling:,} scaling parameters"
    tokens = max(1, tokens)
    batch_from = "given"
    if batch_tokens is None:
        batch_tokens = max(1, round(best_batch_tokens(tokens) / micro_batch_tokens)) * micro_batch_tokens
        batch_from = f"about 0.58 x {tokens:,}^0.571"
    require_positive("batch_tokens", batch_tokens, "Give the tokens of one step over all processes: 32,768.")
    if max_steps > 0:
        tokens, tokens_from = max_steps * batch_tokens, f"max_steps {max_steps:,} x {batch_tokens:,} per step"
    lr_from = "given"
    if lr_scale is None:
        lr_scale = best_lr_scale(batch_tokens, tokens)
        lr_from = f"({batch_tokens:,} / {TUNED_BATCH:,})^0.5 x ({TUNED_HORIZON:,} / {tokens:,})^0.32"
    steps = max(1, tokens // batch_tokens)
    return Pretraining(tokens, tokens_from, batch_tokens, batch_from, steps, lr_scale, lr_from)


def best_batch_tokens(horizon: int) -> int:
    """Tokens of a step: the power of two nearest to 0.58 · horizon^0.571 (Step Law, arXiv 2503.04715)."""
    return 2 ** round(math.log2(0.58 * horizon**0.571))


def best_lr_scale(batch_tokens: int, horizon: int) -> float:
    """The factor on every learning rate: (batch / 524,288)^0.5 · (2.7B / horizon)^0.32.

    1 where nanochat tuned its rates, at depth 12 with 20 tokens per parameter. More noise in a step calls for smaller
    steps, and so does a longer run (horizon^-0.32: arXiv 2409.19913 for AdamW, 2603.28743 for Muon). Measured from 4k
    to 1M tokens per step: benchmarks/RESULTS.md.
    """
    return (batch_tokens / TUNED_BATCH) ** 0.5 * (TUNED_HORIZON / horizon) ** 0.32


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def characters(tokens: int, chars_per_token: float = CHARS_PER_TOKEN) -> int:
    """Characters of text that become so many tokens."""
    require_positive("chars_per_token", chars_per_token, "4.8 is the figure for a vocabulary of 65,536.")
    return round(tokens * chars_per_token)


def shards(chars: int) -> int:
    """Shards of 250M characters that hold so much text."""
    return ceil_div(chars, CHARS_PER_SHARD)


def midtrain_steps(rows: int, mean_row_tokens: int, batch_tokens: int, epochs: int = 1) -> int:
    """Steps over packed conversations, the last one perhaps not full."""
    return ceil_div(rows * mean_row_tokens * epochs, batch_tokens)


def sft_steps(rows: int, rows_per_step: int, epochs: int = 1) -> int:
    """Steps over conversations that are not packed, the last one perhaps not full."""
    return ceil_div(rows * epochs, rows_per_step)


def rl_steps(train_problems: int, examples_per_step: int, epochs: int = 1) -> int:
    """(len(train) // examples per step) x epochs, nanochat's rule: an epoch drops its remainder."""
    require_positive("examples_per_step", examples_per_step, "nanochat takes 16 word problems per step.")
    if train_problems < examples_per_step:
        raise ValueError(
            f"train_problems={train_problems:,} is fewer than examples_per_step={examples_per_step:,}, "
            f"which leaves no step. Take {max(1, train_problems):,} word problems per step or fewer."
        )
    return train_problems // examples_per_step * epochs


def stages(pretrain: Pretraining, inputs: StageInputs) -> dict[str, Stage]:
    """Every stage's steps and tokens, with what they were computed from, in the order they run."""
    i = inputs
    midtrain = midtrain_steps(i.midtrain_rows, i.mean_row_tokens, i.midtrain_batch_tokens, i.midtrain_epochs)
    sft = sft_steps(i.sft_rows, i.sft_rows_per_step, i.sft_epochs)
    per_row = f"{i.mean_row_tokens:,} tokens per row (assumed)"
    midtrain_rows = f"{i.midtrain_rows:,} rows x {i.midtrain_epochs} epoch(s)"
    sft_rows = f"{i.sft_rows:,} rows x {i.sft_epochs} epoch(s)"
    listed = (
        Stage("tokenizer", None, None, f"reads up to {TOKENIZER_CHARS:,} characters"),
        Stage(
            "pretrain",
            pretrain.steps,
            pretrain.steps * pretrain.batch_tokens,
            f"max(1, {pretrain.tokens:,} tokens // {pretrain.batch_tokens:,} tokens per step)",
            f"{pretrain.steps:,} steps x {pretrain.batch_tokens:,}",
        ),
        Stage(
            "midtrain",
            midtrain,
            i.midtrain_rows * i.midtrain_epochs * i.mean_row_tokens,
            f"ceil({midtrain_rows} x {per_row} / {i.midtrain_batch_tokens:,} tokens per step)",
            f"{midtrain_rows} x {per_row}",
        ),
        Stage(
            "sft",
            sft,
            i.sft_rows * i.sft_epochs * i.mean_row_tokens,
            f"ceil({sft_rows} / {i.sft_rows_per_step:,} rows per step)",
            f"{sft_rows} x {per_row}",
        ),
        grpo_stage(i),
        Stage("evaluate", None, None, "optimizes nothing"),
    )
    return {stage.name: stage for stage in listed}


def grpo_stage(i: StageInputs) -> Stage:
    steps = rl_steps(i.grpo_problems, i.grpo_problems_per_step, i.grpo_epochs)
    per_step = f"{i.grpo_problems_per_step:,} problems x {i.grpo_completions:,} completions"
    return Stage(
        "grpo",
        steps,
        steps * i.grpo_problems_per_step * i.grpo_completions * i.grpo_completion_tokens,
        f"{i.grpo_problems:,} problems // {i.grpo_problems_per_step:,} per step x {i.grpo_epochs} epoch(s)",
        f"at most {steps:,} steps x {per_step} x {i.grpo_completion_tokens:,} tokens",
    )
