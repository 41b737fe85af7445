"""Where the time of a stage goes."""

from types import SimpleNamespace

import torch

from nanohf.train.phase_timer import Clock


def test_phases_inside_one_another_add_up_to_the_whole(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nanohf.train.phase_timer.time.perf_counter", lambda: now[0])
    clock = Clock(torch.device("cpu"))
    state = SimpleNamespace(global_step=5)

    def work(seconds: float) -> None:
        now[0] += seconds

    work(100)  # loading
    clock.on_train_begin(None, state, None)
    for _ in range(2):
        with clock.phase("backward"):
            work(1)
            with clock.phase("generation"):
                work(10)
            work(2)
        clock.on_pre_optimizer_step(None, state, None)
        work(0.5)
        clock.on_optimizer_step(None, state, None)
        work(0.25)
    assert clock.seconds == {"backward": 6, "generation": 20, "optimizer": 1, "other": 0.25}
    assert clock.lap(7) == {f"seconds/{k}": v / 2 for k, v in (clock.seconds | {"other": 0.5}).items()}
    clock.phase("evaluation")(work)(4)
    assert clock.lap(8)["seconds/evaluation"] == 4
    assert clock.steps == 2
