"""How long pretraining trains and how fast it learns: each number derived once, and printed with its inputs."""

from dataclasses import dataclass, replace

from nanohf import console
from nanohf.train.resuming import Batch


@dataclass
class Horizon:
    """How long to train and how fast to learn, each number derived once. See `derive_horizon`."""

    steps: int
    accumulation: int  # micro-batches of a step on each process
    batch_tokens: int
    lr_scale: float = 1.0
    rows: int = 0  # of a micro-batch
    processes: int = 1

    @property
    def tokens(self) -> int:
        return self.steps * self.batch_tokens


def derive_horizon(config, vocab_size: int, num_processes: int) -> Horizon:
    """Steps, batch, accumulation and the learning rates' factor from the recipe, printed with their inputs.

    All but the accumulation are the same with any number of processes.

    Raises:
        RecipeError: batch_tokens is not a multiple of what the processes read in one micro-batch.
    """
    rows, plan = config.per_device_train_batch_size, config.horizon(vocab_size)
    console.progress(f"horizon: {plan.tokens:,} tokens = {plan.tokens_from}")
    console.progress(f"a step: {plan.batch_tokens:,} tokens = {plan.batch_from}")
    accumulation = config.accumulation(plan.batch_tokens, num_processes)
    console.progress(
        f"  = {rows} rows x {config.max_length} tokens x {num_processes} process(es) x {accumulation} micro-batch(es)"
    )
    console.progress(f"steps: {plan.steps:,} = {plan.tokens:,} tokens // {plan.batch_tokens:,} per step")
    console.progress(f"learning rates: x {plan.lr_scale:.3g} = {plan.lr_from}")
    return Horizon(plan.steps, accumulation, plan.batch_tokens, plan.lr_scale, rows, num_processes)


def kept_horizon(written: dict, num_processes: int) -> Horizon:
    """The horizon that a checkpoint was written with, shared out between the processes there are now.

    Raises:
        RecipeError: they cannot share its batch evenly.
    """
    horizon = Horizon(**written)
    before = Batch(horizon.processes, horizon.rows, horizon.accumulation)
    batch = before.on(num_processes)
    batch.said(before)
    console.progress(f"as the checkpoint has it: {horizon.steps:,} steps of {horizon.batch_tokens:,} tokens")
    return replace(horizon, accumulation=batch.accumulation, rows=batch.rows, processes=num_processes)
