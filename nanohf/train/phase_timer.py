"""Where the time of a stage goes: seconds by phase, which add up to the whole."""

import time
from contextlib import contextmanager

import torch
from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Seconds of this process by phase; a phase inside another one is taken out of it.

    What no phase claims is `other`. A GPU is waited for at every change of phase, or its work would count where it is
    waited for and not where it was asked for.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}
        self.steps = 0  # of this process
        self._phases, self._since = ["other"], time.perf_counter()
        self._lap: tuple[int, dict[str, float]] = (0, {})

    def start(self, phase: str) -> None:
        self._count()
        self._phases.append(phase)

    def stop(self) -> None:
        self._count()
        self._phases.pop()

    @contextmanager
    def phase(self, name: str):
        self.start(name)
        try:
            yield
        finally:
            self.stop()

    def lap(self, step: int) -> dict[str, float]:
        """Seconds per step of each phase since the last call, as `seconds/PHASE`."""
        self._count()
        (last, before), self._lap = self._lap, (step, self.seconds.copy())
        return {
            f"seconds/{name}": (s - before.get(name, 0.0)) / max(1, step - last) for name, s in self.seconds.items()
        }

    def _count(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize()
        now = time.perf_counter()
        phase = self._phases[-1]
        self.seconds[phase] = self.seconds.get(phase, 0.0) + (now - self._since)
        self._since = now

    def on_train_begin(self, args, state, control, **kwargs):
        """What came before, such as loading, belongs to no step."""
        self._count()
        self.seconds.pop("other", None)
        self._lap = (state.global_step, self.seconds.copy())

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.start("optimizer")

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.stop()
        self.steps += 1
