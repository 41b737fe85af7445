"""The line of every few steps: tokens and seconds since the last one, without the pauses."""

import pytest

from nanohf import console
from nanohf.train.progress import Speedometer, clock


@pytest.fixture
def wait(monkeypatch):
    """wait(seconds), without waiting."""
    now = [0.0]
    monkeypatch.setattr("nanohf.train.progress.time.perf_counter", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_lines_and_what_is_returned(wait, capsys):
    speed = Speedometer(steps=10, every=4, peak_rate=1000.0)
    assert speed.mean == 0.0
    found = []
    for step in range(1, 11):
        wait(2)
        if step in (2, 6, 7):
            with speed.paused():
                wait(50)
        found.append(speed.step(step, 200 if 4 < step < 9 else 100, loss=1.23456))
    assert capsys.readouterr().err.splitlines() == [
        "step 4/10 | loss 1.235 | 50 tokens/s | MFU 5.0% | 0:12 left",
        "step 8/10 | loss 1.235 | 100 tokens/s | MFU 10.0% | 0:04 left",
        "step 10/10 | loss 1.235 | 50 tokens/s | MFU 5.0% | 0:00 left",
    ]
    assert found[3] == {"tokens_per_second": 50.0, "mfu": 0.05}
    assert found[7] == {"tokens_per_second": 100.0, "mfu": 0.1}
    assert all(found[i] == {} for i in (0, 1, 2, 4, 5, 6, 8))
    assert (speed.tokens, speed.seconds, speed.mean, speed.mfu(speed.mean)) == (1400, 20, 70.0, 0.07)


def test_a_resumed_run_reckons_with_its_own_steps(wait, capsys):
    speed = Speedometer(steps=1100, first_step=1000, every=5)
    wait(20)
    assert speed.step(1005, 100_000) == {"tokens_per_second": 5000.0}
    assert capsys.readouterr().err == "step 1,005/1,100 |  | 5,000 tokens/s | 6:20 left\n"
    assert speed.mfu(5000.0) is None
    assert speed.step(1006, 0, force=True) == {}, "nothing was done since"
    wait(1)
    assert speed.step(1006, 10, force=True) == {"tokens_per_second": 10.0}


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (7384, "2:03:04")]
)
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def test_only_the_main_process_speaks(monkeypatch, capsys):
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        console.progress(f"rank {rank}")
    assert capsys.readouterr().err == "rank 0\n"
