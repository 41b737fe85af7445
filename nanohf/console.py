"""What a person reads while nanohf works: results on stdout, progress and warnings on stderr, from rank 0 only.

`--quiet` (or NANOHF_LOG=quiet) leaves warnings and errors; `--verbose` (or NANOHF_LOG=verbose) adds what the
libraries say.
"""

import os
import sys
from collections.abc import Callable

from nanohf.errors import NanoHFError, RecipeError

LEVELS = ("quiet", "normal", "verbose")


def is_first() -> bool:
    """Whether this is rank 0. Accelerate's own state takes one of several CPU processes for the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def level() -> str:
    chosen = os.environ.get("NANOHF_LOG", "normal")
    return chosen if chosen in LEVELS else "normal"


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
    except RecipeError as failure:
        for message in failure.messages:
            error(message)
        return failure.exit_status
    except NanoHFError as failure:
        error(str(failure))
        return failure.exit_status
    except KeyboardInterrupt:
        progress("\ninterrupted")
        return 130
