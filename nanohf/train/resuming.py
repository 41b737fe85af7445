"""What a resumed stage takes from its checkpoint and not from the machine: batch, steps, and what its data was like."""

from dataclasses import asdict, dataclass
from math import gcd
from pathlib import Path

from accelerate.utils import broadcast_object_list

from nanohf import console
from nanohf.data.source_state import source_changes
from nanohf.errors import RecipeError
from nanohf.runs.checkpoint_files import newest_whole


@dataclass(frozen=True)
class Batch:
    """The rows of a step and how they are shared out. A step has as many with any number of processes."""

    processes: int
    rows: int  # of a micro-batch on one process
    accumulation: int  # micro-batches of a step on one process

    @property
    def total(self) -> int:
        return self.processes * self.rows * self.accumulation

    def on(self, processes: int, unit: int | None = None) -> "Batch":
        """The same rows per step with other processes, in micro-batches that are not larger.

        unit: rows that the processes have to share out evenly besides, such as those of one generation.

        Raises:
            RecipeError: the rows cannot be shared out evenly.
        """
        if processes == self.processes:
            return self
        shared = gcd(self.total, unit or self.total)
        mine, rest = divmod(shared, processes)
        if rest:
            fitting = [n for n in range(1, max(8, self.processes) + 1) if shared % n == 0]
            raise RecipeError(
                f"the checkpoint was written by {self.processes} process(es), and {processes} cannot share its "
                f"{shared:,} rows evenly. Resume with {' or '.join(map(str, fitting))}: accelerate launch "
                f"--num_processes {self.processes if self.processes in fitting else fitting[-1]} ..., or num_processes "
                "in the file given to nanohf run --accelerate-config."
            )
        rows = max(n for n in range(1, self.rows + 1) if mine % n == 0)
        return Batch(processes, rows, self.total // (processes * rows))

    def said(self, before: "Batch") -> None:
        """Nothing where nothing has changed."""
        if self != before:
            console.progress(
                f"written by {before.processes} process(es), now {self.processes}: still {self.total:,} rows per step, "
                f"as {self.accumulation} micro-batch(es) of {self.rows} on each process"
            )

    as_dict = asdict


def chosen_checkpoint(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint, examined by rank 0 and the same on all processes.

    Raises:
        RecipeError: there are checkpoints and all are damaged.
    """
    newest: Path | None = None
    errors: list[str] = []
    if console.is_first():
        try:
            newest = newest_whole(checkpoints)
        except RecipeError as error:
            errors = error.messages
    newest, errors = broadcast_object_list([newest, errors])
    if errors:
        raise RecipeError(errors)
    return newest


def warn_of_changed_data(before: dict, now: dict) -> None:
    for line in source_changes(before, now):
        console.warning(
            f"the data has changed since this stage began: {line}. The rest of the steps reads it as it is now; for a "
            "result from this data alone start the stage again with --from"
        )
