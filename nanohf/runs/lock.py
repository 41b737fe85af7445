"""One run at a time in a run's folder: a lock that says who is at work, and that a killed process does not leave held.

.run.lock    held by `nanohf run`, or by a stage that was started by hand
.stage.lock  held by the stage at work: it may outlive a `nanohf run` that was killed

Both are flocks: the kernel opens them when their process ends. What is written in them is for people, and for what an
flock cannot know: a process on another host, where the file system does not carry locks across.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from nanohf import console
from nanohf.errors import RecipeError

RUN, STAGE = ".run.lock", ".stage.lock"
TOKEN = "NANOHF_RUN_LOCK"  # what a stage inherits from the `nanohf run` that started it
PATIENCE = 1.0  # seconds: a process that was just killed may still be closing its files


@contextmanager
def run_lock(run_dir: str | Path) -> Iterator[None]:
    """Holds the folder for `nanohf run` and the stages that it starts.

    Raises:
        RecipeError: another process is at work in it, or was on another host.
    """
    run_dir = Path(run_dir)
    with run_folder_made(run_dir), _held(run_dir / RUN) as token:
        with _held(run_dir / STAGE):
            pass  # a stage whose `nanohf run` was killed may still be at work
        os.environ[TOKEN] = token
        try:
            yield
        finally:
            del os.environ[TOKEN]


@contextmanager
def stage_lock(run_dir: str | Path) -> Iterator[None]:
    """Holds the folder for one stage, on rank 0 only.

    Raises:
        RecipeError: another process is at work in it, or was on another host.
    """
    if not console.is_first():
        yield
        return
    run_dir = Path(run_dir)
    with run_folder_made(run_dir), ExitStack() as locks:
        if os.environ.get(TOKEN) is None or _holder(run_dir / RUN).get("token") != os.environ[TOKEN]:
            locks.enter_context(_held(run_dir / RUN))
        locks.enter_context(_held(run_dir / STAGE))
        yield


@contextmanager
def run_folder_made(run_dir: Path) -> Iterator[None]:
    """Within it the folder is there; what is still empty in the end and was not there before is removed."""
    new = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise RecipeError(f"run_dir={run_dir} cannot be made ({error.strerror}); choose another folder") from error
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in new:
                folder.rmdir()


@contextmanager
def _held(path: Path) -> Iterator[str]:
    """The lock at this path, with a new token."""
    file = _opened(path)
    with file:
        if holder := _holder(path):
            if holder.get("host") != socket.gethostname():
                raise RecipeError(
                    f"{path.parent}: {_named(holder)} was at work here, and whether it still is cannot be seen from "
                    f"this host. If it is not: rm {path}"
                )
            console.progress(f"{path.parent}: taken over from {_named(holder)}, which was killed")
        token = uuid4().hex
        started = datetime.now(UTC).isoformat(timespec="seconds")
        me = {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "token": token}
        file.truncate(0)
        file.write(json.dumps(me) + "\n")
        file.flush()
        try:
            yield token
        finally:
            path.unlink(missing_ok=True)  # while it is held: who opens the old file finds that it is not the new one


def _opened(path: Path):
    """The file at this path, locked."""
    give_up = time.monotonic() + PATIENCE
    while True:
        file = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            if time.monotonic() > give_up:
                file.close()
                raise RecipeError(_busy(path)) from None
            time.sleep(0.1)
        file.close()


def _busy(path: Path) -> str:
    holder = _holder(path)
    stop = f" or stop it: kill {holder['pid']}" if holder.get("host") == socket.gethostname() else ""
    return (
        f"{path.parent}: {_named(holder)} is at work here, and two would overwrite each other's checkpoints. Wait for "
        f"it{stop}, or choose another folder (--name with nanohf run, --run_dir with a stage)."
    )


def _named(holder: dict) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')} (since {holder.get('started', '?')})"


def _holder(path: Path) -> dict:
    """What the lock says of its holder; nothing where there is none."""
    with suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return {}
