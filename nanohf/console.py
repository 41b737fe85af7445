"""What a person reads while nanohf works: results on stdout, progress and warnings on stderr, from rank 0 only.

`--quiet` (or NANOHF_LOG=quiet) leaves warnings and errors; `--verbose` (or NANOHF_LOG=verbose) adds what the
libraries say.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nanohf.errors import NanoHFError

LEVELS = ("quiet", "normal", "verbose")
STATUS_FILE = "NANOHF_STATUS_FILE"


def is_first() -> bool:
    """Whether this is rank 0. Accelerate's own state takes one of several CPU processes for the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def level() -> str:
    chosen = os.environ.get("NANOHF_LOG", "normal")
    return chosen if chosen in LEVELS else "normal"


def set_level(chosen: str) -> None:
    """For this process and those it starts."""
    os.environ["NANOHF_LOG"] = chosen


def result(text: str) -> None:
    """What was asked for: a plan, a report, a verdict. To stdout."""
    if is_first():
        print(text, flush=True)


def progress(text: str) -> None:
    """What is going on. To stderr."""
    if is_first() and level() != "quiet":
        print(text, file=sys.stderr, flush=True)


def warning(text: str) -> None:
    if is_first():
        print(f"warning: {text}", file=sys.stderr, flush=True)


def error(text: str) -> None:
    """From every rank: the first one to fail may not be rank 0."""
    print(f"error: {text}", file=sys.stderr, flush=True)


def exit_status(work: Callable[[], int | None]) -> int:
    """Runs `work` and turns what it raises into messages and an exit status. The one place that does.

    2: the user's input; 1: the world; 130: Ctrl-C. Other exceptions keep their traceback and end in 1.
    """
    try:
        return work() or 0
    except NanoHFError as failure:
        for message in getattr(failure, "messages", [str(failure)]):
            error(message)
        if path := os.environ.get(STATUS_FILE):
            Path(path).write_text(str(failure.exit_status))
        return failure.exit_status
    except KeyboardInterrupt:
        progress("\ninterrupted")
        return 130
    except BrokenPipeError:  # whoever read stdout has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run_as_program(main: Callable[[list[str]], int | None]) -> None:
    """The end of a stage's file: main with the command line's arguments, as the whole process."""
    sys.exit(exit_status(lambda: main(sys.argv[1:])))


@contextmanager
def exit_status_file() -> Iterator[tuple[dict[str, str], Callable[[int], int]]]:
    """For a launcher that makes 1 of every failure: the environment in which a child's `exit_status` notes its own,
    and the function that replaces the launcher's status by it."""
    with TemporaryDirectory(prefix="nanohf-") as folder:
        path = Path(folder) / "status"
        yield {STATUS_FILE: str(path)}, lambda status: int(path.read_text()) if status and path.is_file() else status
