"""What of the user's text could not be read: said once, and kept for the stage's record."""

from collections import Counter

from nanohf import console

NAMED = 100  # bad rows of one file that are named; what follows is one line

skipped_files: set[str] = set()  # damaged files by their path, bad rows as `PATH, line 7,001`
_rows: Counter[str] = Counter()


def skip_file(file: str, reason: str) -> None:
    if file not in skipped_files:
        skipped_files.add(file)
        console.warning(f"{file}: {reason}; what cannot be read of it is skipped")


def skip_row(file: str, where: str, reason: str) -> None:
    """where: `line 7,001` or `row 7,001`."""
    name = f"{file}, {where}"
    if name in skipped_files:
        return
    _rows[file] += 1
    if _rows[file] <= NAMED:
        skipped_files.add(name)
        console.warning(f"{name}: {reason}; skipped")
    elif _rows[file] == NAMED + 1:
        skipped_files.add(f"{file}, more than {NAMED} rows")
        console.warning(f"{file}: more than {NAMED} bad lines or rows; the others are skipped without naming them")


def forget() -> None:
    skipped_files.clear()
    _rows.clear()
