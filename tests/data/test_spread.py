"""Work spread over processes: in order, no further ahead than asked, and no worker that outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from itertools import count, islice

import pytest

from nanohf.data.spread import in_order


def slow_if_even(number: int) -> tuple[int, int]:
    time.sleep(0.02 * (number % 2 == 0))
    return number, os.getpid()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_in_order_whatever_finishes_first(processes):
    numbers, workers = zip(*in_order(slow_if_even, range(20), processes), strict=True)
    assert numbers == tuple(range(20))
    assert len(set(workers)) == processes
    assert (os.getpid() in workers) == (processes == 1)


def test_an_endless_source_is_read_little_further_than_asked():
    read = []
    pieces = (read.append(number) or number for number in count())
    assert [number for number, _ in islice(in_order(slow_if_even, pieces, 2), 10)] == list(range(10))
    assert 10 <= len(read) <= 14


def test_what_the_work_raises_comes_here():
    with pytest.raises(ZeroDivisionError):
        list(in_order((1).__truediv__, [1, 0, 2], 2))


def killed(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_an_error_and_no_endless_wait():
    with pytest.raises(BrokenProcessPool):
        list(in_order(killed, range(4), 2))


ORPHANS = """
import os, time
from nanohf.data.spread import in_order
def work(piece):
    time.sleep(piece)
    return os.getpid()
for pid in in_order(work, [0, 0, 0, 0, 0, 0, 0.01, 0.01, 600, 600, 600, 600], 2):
    print(pid, flush=True)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = f"/proc/{pid}/stat"
    return not os.path.exists(status) or open(status).read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(how):
    """Idle or at work: they would hold its locks."""
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as process:
        workers = {int(process.stdout.readline()) for _ in range(8)}
        assert all(map(alive, workers))
        process.send_signal(how)
        process.wait(10)
        give_up = time.monotonic() + 10
        while any(map(alive, workers)) and time.monotonic() < give_up:
            time.sleep(0.05)
        assert not any(map(alive, workers))
