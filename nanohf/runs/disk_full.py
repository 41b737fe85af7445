"""A full disk: one line that says what to do, whichever library met it and however it words it."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nanohf.errors import DiskFullError

NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and torch raise exceptions of their own; torch's writer says no more than that it could not write on.
WORDS: tuple[str, ...] = ("No space left on device", "Disk quota exceeded", "File too large")
WORDS += ("PytorchStreamWriter failed writing", "iostream error", "inline_container.cc")


@contextmanager
def disk_full_said(run_dir: str | Path) -> Iterator[None]:
    """Raises DiskFullError in place of whatever a full disk made the work inside raise."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise DiskFullError(
            f"{run_dir}: the disk is full ({free(Path(run_dir))} left), nothing half-written is kept. Make room, or "
            "lower save_total_limit; then the same command resumes from the newest checkpoint."
        ) from error


def is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) in NUMBERS or any(words in str(error) for words in WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def free(folder: Path) -> str:
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return f"{shutil.disk_usage(there).free / 2**20:,.1f} MiB"
