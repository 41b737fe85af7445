"""Learning rate and momentum over the run, as factors of a step. Pure functions: resuming needs no state of theirs."""


def lr_factor(step: int, steps: int, warmup: int = 0, warmdown: float = 0.2, final: float = 0.0) -> float:
    """Linear warmup over `warmup` steps, constant, then linear to `final` over the last `warmdown` share of `steps`."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    decay_steps = round(warmdown * steps)
    left = min(1.0, (steps - step) / decay_steps) if decay_steps else 1.0
    return rise * (left + (1 - left) * final)


def muon_momentum(step: int, ramp: int = 300) -> float:
    """0.85 → 0.95 over the first `ramp` steps (nanochat 2025-11): early gradients turn too fast for a long memory."""
    return 0.85 + 0.10 * min(1.0, step / ramp)


def batch_factor(batch_tokens: int, horizon: int, exponent: float = 0.0) -> float:
    """Factor on all learning rates (`lr_scale` of `build_groups`) for batches smaller than the horizon asks for.

    Updates of Muon and AdamW have a norm of their own, so rates go with √batch as long as gradients are mostly noise
    (arXiv 2205.10287) and stay where they are above that (arXiv 2405.14578). Where that is depends on the horizon: the
    best batch is about 2^19 tokens at 1.32e9, which is nanochat's depth 12, and grows with horizon^0.383 (arXiv
    2505.13738). nanochat takes √(batch / 2^19) at every horizon, which at 4,096 tokens a step and 2M tokens in all is
    0.14 bpb worse than no factor (its depth 4). exponent: 0.5 is the square root; 0, no factor, until it is fitted.
    """
    best = 2**19 * (horizon / 1.32e9) ** 0.383
    return min(1.0, batch_tokens / best) ** exponent
