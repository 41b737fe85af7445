"""The same work on many pieces by several processes, in the pieces' order, a few pieces ahead of who takes the results.

Workers are forked where that is safe, which costs them no imports. They ignore Ctrl-C, which is the parent's to handle,
and end with it however it ends: a worker that lives on would hold the locks that it was born with.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

work_of_this_process: Callable | None = None


def available_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[Any], Any], pieces: Iterable[Any], processes: int) -> Iterator[Any]:
    """work(piece) for each piece. `pieces` may be endless: it is read no further than processes + 1 pieces ahead.

    Raises:
        BrokenProcessPool: a worker was killed.
    """
    if processes <= 1:
        yield from map(work, pieces)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(work, os.getpid()))
    ahead: deque = deque()
    try:
        for piece in pieces:
            ahead.append(pool.submit(_do, piece))
            if len(ahead) > processes + 1:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(work: Callable, parent: int) -> None:
    global work_of_this_process
    work_of_this_process = work
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    gc.freeze()  # no collection goes through, and copies, what the parent had
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _do(piece: Any) -> Any:
    assert work_of_this_process
    return work_of_this_process(piece)
