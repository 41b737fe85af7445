"""The batch of a step as a recipe says it, over all processes, and how processes share it in micro-batches."""

from dataclasses import dataclass
from math import gcd

from nanohf.errors import RecipeError


@dataclass(frozen=True)
class StepBatch:
    """What one step reads on all processes together, in the unit that its key counts.

    key, value: as the recipe has them. tokens_per_row: of a packed row, where the key counts tokens.
    completions: of a word problem, where it counts those; each completion is a row.
    """

    key: str
    value: int
    tokens_per_row: int = 1
    completions: int = 1

    def accumulation(self, micro_batch_rows: int, processes: int = 1) -> int:
        """Micro-batches of a step on each process.

        Raises:
            RecipeError: the processes cannot share the batch in micro-batches of so many rows.
        """
        at_once = micro_batch_rows * processes * self.tokens_per_row
        if self.value * self.completions % at_once:
            raise RecipeError(self._refusal(micro_batch_rows, processes))
        return self.value * self.completions // at_once

    def _refusal(self, micro_batch_rows: int, processes: int) -> str:
        at_once = micro_batch_rows * processes * self.tokens_per_row
        rows = f"{micro_batch_rows:,} row{'s' if micro_batch_rows > 1 else ''}"
        rows += f" x {self.tokens_per_row:,} tokens" if self.tokens_per_row > 1 else ""
        rows += f" x {processes:,} processes" if processes > 1 else ""
        rows += f" = {at_once:,}" if rows.count(" x ") else ""
        made_of = f" x num_generations={self.completions:,} = {self.value * self.completions:,} rows"
        batch = f"{self.key}={self.value:,}{made_of if self.completions > 1 else ''}"
        fitting = [f"{value:,}" for value in self._nearest(at_once)]
        if smaller := self._smaller_micro_batch(micro_batch_rows, processes):
            fitting[-1] += f", or per_device_train_batch_size={smaller:,}"
        return f"{batch} is not a multiple of {rows}. Try {' or '.join(fitting)}."

    def _nearest(self, at_once: int) -> list[int]:
        """The values below and above that can be shared."""
        unit = at_once // gcd(at_once, self.completions)
        below = self.value // unit * unit
        return [value for value in (below, below + unit) if value]

    def _smaller_micro_batch(self, micro_batch_rows: int, processes: int) -> int | None:
        """The largest that shares the value as it is; None if there is none."""
        mine, rest = divmod(self.value * self.completions, self.tokens_per_row * processes)
        return None if rest else max(n for n in range(1, micro_batch_rows + 1) if mine % n == 0)
