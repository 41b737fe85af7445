"""What a person sees while a stage works: one line every few steps, from the main process only."""

import time
from contextlib import contextmanager

from nanohf import console


class Speedometer:
    """Counts tokens and prints `step | values | tokens/s | time left` every `every` steps and at the last.

    peak_rate: tokens/s if the hardware ran at its peak, from which MFU follows; None: not known.
    """

    def __init__(self, steps: int, first_step: int = 0, every: int = 10, peak_rate: float | None = None):
        self.steps, self.first_step, self.every, self.peak_rate = steps, first_step, every, peak_rate
        self.tokens, self.seconds = 0, 0.0
        self._started, self._counted = time.perf_counter(), 0

    def step(self, step: int, tokens: int, force: bool = False, **values: float) -> dict[str, float]:
        """Returns the speed where it printed it, else nothing."""
        self.tokens += tokens
        if not force and step % self.every and step != self.steps:
            return {}
        if self.tokens == self._counted:
            return {}
        now = time.perf_counter()
        self.seconds += now - self._started
        rate = (self.tokens - self._counted) / (now - self._started)
        left = self.seconds / (step - self.first_step) * (self.steps - step)
        shown = " | ".join(f"{name} {value:.4g}" for name, value in values.items())
        speed = {"tokens_per_second": rate} | ({} if (mfu := self.mfu(rate)) is None else {"mfu": mfu})
        share = "" if mfu is None else f" | MFU {mfu:.1%}"
        console.progress(f"step {step:,}/{self.steps:,} | {shown} | {rate:,.0f} tokens/s{share} | {clock(left)} left")
        self._started, self._counted = now, self.tokens
        return speed

    @contextmanager
    def paused(self):
        """An evaluation or a checkpoint: time that is not training."""
        before = time.perf_counter()
        yield
        self._started += time.perf_counter() - before

    def mfu(self, rate: float) -> float | None:
        """Model FLOPs utilisation: the share of the peak."""
        return rate / self.peak_rate if self.peak_rate else None

    @property
    def mean(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
