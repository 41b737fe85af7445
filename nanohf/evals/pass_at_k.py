"""pass@k on word problems: how often one of k sampled answers is right, with honest intervals."""

import math
from collections.abc import Callable

from accelerate.utils import gather_object

from nanohf.data.gsm8k import is_correct

SAMPLES = 3  # completions to read, of the first problems


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased chance that k of `samples` drawn without replacement hold a right one (arXiv 2107.03374, equation 1)."""
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def mean_interval(values: list[float], z: float = 1.96) -> tuple[float, float, float]:
    """Mean of values in [0, 1] with its 95% interval: Wilson's, at the sample size that the spread is worth.

    One value per problem: samples of one problem are not independent evidence, problems are.
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
    processes=None,
    **sampling,
) -> dict:
    """Samples every word problem and counts.

    generate: `Engine.generate`; prompts: token ids; answers: with their `####` line; batch_size: problems at a time;
    processes: accelerate's state, to share the batches among all processes. Each then returns the whole result, the
    same for any number of them.
    Returns n, pass@k for k = 1..num_samples as {"pass@1": [mean, low, high], ...}, shares of finished completions and
    of problems always and never solved, calculator calls per completion and the share refused, the first completion
    as `example`, one of each of the first problems as `samples`, and how many were right of each problem as `right`.
    """
    rank, world_size = (processes.process_index, processes.num_processes) if processes else (0, 1)
    counts = []
    for start in range(rank * batch_size, len(prompts), world_size * batch_size):
        groups = generate(prompts[start : start + batch_size], num_samples, seed=seed + start, **sampling)
        counts += [
            counted(decode, problem, prompts[problem], answers[problem], group)
            for problem, group in enumerate(groups, start)
        ]
    if world_size > 1:
        counts = sorted(gather_object(counts), key=lambda count: count["problem"])
    right = [count["right"] for count in counts]
    calls = sum(count["calls"] for count in counts)
    return {
        "n": len(prompts),
        "num_samples": num_samples,
        **{
            f"pass@{k}": list(mean_interval([pass_at_k(num_samples, c, k) for c in right]))
            for k in range(1, num_samples + 1)
        },
        "finished": sum(count["finished"] for count in counts) / (len(prompts) * num_samples),
        "always_right": sum(c == num_samples for c in right) / len(right),
        "always_wrong": sum(c == 0 for c in right) / len(right),
        "calculator_calls": calls / (len(prompts) * num_samples),
        "calculator_refused": sum(count["refused"] for count in counts) / max(1, calls),
        "example": counts[0]["sample"]["text"],
        "samples": [count["sample"] for count in counts[:SAMPLES]],
        "right": right,
    }


def counted(decode: Callable, problem: int, prompt: list[int], answer: str, group: list) -> dict:
    """What `score` needs to know of a problem's completions."""
    right = [is_correct(decode(c.ids), answer) for c in group]
    return {
        "problem": problem,
        "right": sum(right),
        "finished": sum(c.finished for c in group),
        "calls": sum(c.calls for c in group),
        "refused": sum(c.refused for c in group),
        "sample": {"text": decode(prompt + group[0].ids), "right": right[0]},
    }


def shown(result: dict) -> str:
    """`pass@1 41.2% [38.0, 44.4], pass@8 73.0% [...], n = 400` for a progress line."""
    best = f"pass@{result['num_samples']}"
    parts = []
    for name in dict.fromkeys(("pass@1", best)):
        mean, low, high = result[name]
        parts.append(f"{name} {100 * mean:.1f}% [{100 * low:.1f}, {100 * high:.1f}]")
    return ", ".join([*parts, f"n = {result['n']}"])


def without_details(result: dict) -> dict:
    """A result for the record: without what is said of single problems."""
    return {key: value for key, value in result.items() if key not in ("samples", "right")}


def paired_change(before: list[int], after: list[int], z: float = 1.96) -> tuple[float, float, float]:
    """How much pass@k changed, k = num_samples, with its 95% interval: of the same word problems, so one by one.

    before, after: how many samples of each were right, `right` of `score`.
    """
    changes = [float(b > 0) - float(a > 0) for a, b in zip(before, after, strict=True)]
    n = len(changes)
    mean = sum(changes) / n
    half = z * math.sqrt(sum((c - mean) ** 2 for c in changes) / max(1, n - 1) / n)
    return mean, mean - half, mean + half
