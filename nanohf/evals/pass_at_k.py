"""pass@k on word problems: how often one of k sampled answers is right, with honest intervals."""

import math
from collections.abc import Callable

from nanohf.data.gsm8k import is_correct


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased chance that k of `samples` drawn without replacement hold a right one (arXiv 2107.03374, equation 1)."""
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def mean_interval(values: list[float], z: float = 1.96) -> tuple[float, float, float]:
    """Mean of values in [0, 1] with its 95% interval: Wilson's, at the sample size that the spread is worth.

    One value a problem: samples of one problem are no independent evidence, problems are.
    """
    n = len(values)
    mean = sum(values) / n
    variance = sum((v - mean) ** 2 for v in values) / (n - 1) if n > 1 else 0.0
    worth = mean * (1 - mean) * n / variance if variance > 0 else n  # binomial sample size of the same precision
    centre = (mean + z * z / (2 * worth)) / (1 + z * z / worth)
    half = z * math.sqrt(mean * (1 - mean) / worth + z * z / (4 * worth * worth)) / (1 + z * z / worth)
    return mean, max(0.0, centre - half), min(1.0, centre + half)


def score(
    generate: Callable[..., list[list]],
    decode: Callable[[list[int]], str],
    prompts: list[list[int]],
    answers: list[str],
    num_samples: int,
    batch_size: int,
    seed: int = 0,
    **sampling,
) -> dict:
    """Samples every problem and counts.

    generate: `Engine.generate`; prompts: token ids; answers: with their `####` line; batch_size: problems at a time.
    Returns n, pass@k for k = 1..num_samples as {"pass@1": [mean, low, high], ...}, shares of finished completions and
    of problems always and never solved, calculator calls a completion and the share refused, the first completion.
    """
    groups = []
    for start in range(0, len(prompts), batch_size):
        groups += generate(prompts[start : start + batch_size], num_samples, seed=seed + start, **sampling)
    right = [
        sum(is_correct(decode(c.ids), answer) for c in group) for group, answer in zip(groups, answers, strict=True)
    ]
    completions = [c for group in groups for c in group]
    calls = sum(c.calls for c in completions)
    return {
        "n": len(prompts),
        "num_samples": num_samples,
        **{
            f"pass@{k}": list(mean_interval([pass_at_k(num_samples, c, k) for c in right]))
            for k in range(1, num_samples + 1)
        },
        "finished": sum(c.finished for c in completions) / len(completions),
        "always_right": sum(c == num_samples for c in right) / len(right),
        "always_wrong": sum(c == 0 for c in right) / len(right),
        "calculator_calls": calls / len(completions),
        "calculator_refused": sum(c.refused for c in completions) / max(1, calls),
        "example": decode(prompts[0] + groups[0][0].ids),
    }


def shown(result: dict) -> str:
    """`pass@1 41.2% [38.0, 44.4], pass@8 73.0% [...], n = 400` for a progress line."""
    best = f"pass@{result['num_samples']}"
    parts = []
    for name in dict.fromkeys(("pass@1", best)):
        mean, low, high = result[name]
        parts.append(f"{name} {100 * mean:.1f}% [{100 * low:.1f}, {100 * high:.1f}]")
    return ", ".join([*parts, f"n = {result['n']}"])
