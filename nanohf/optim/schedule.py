"""Pretraining's learning rate and Muon's momentum by the step. Pure functions: resuming needs no state of theirs.

Midtraining, SFT and GRPO have TRL's `lr_scheduler_type`.
"""


def lr_factor(step: int, steps: int, warmup: int, warmdown: float) -> float:
    """Linear warmup over `warmup` steps, constant, then linear to 0 over the last `warmdown` share of `steps`."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    decay_steps = round(warmdown * steps)
    left = min(1.0, (steps - step) / decay_steps) if decay_steps else 1.0
    return rise * left


def muon_momentum(step: int, ramp: int = 300) -> float:
    """0.85 → 0.95 over the first `ramp` steps (nanochat 2025-11): early gradients turn too fast for a long memory."""
    return 0.85 + 0.10 * min(1.0, step / ramp)
