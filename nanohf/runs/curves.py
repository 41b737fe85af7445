"""A stage's curves as one SVG picture, from its record: loss, bits per byte, reward and pass@k by step.

There is nothing in it but our own words and numbers.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

from nanohf.runs.stage_record import StageRecord

FILE = "curves.svg"  # beside the result
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 220, 64, 24, 32, 40  # of a panel and its margins, in pixels
MANY = 400  # points of a line; of more, every n-th is drawn


@dataclass(frozen=True)
class Curve:
    """points: (step, value), by step; band: an interval around each, or none."""

    title: str
    points: list[tuple[float, float]]
    band: list[tuple[float, float]] = field(default_factory=list)


def curves_of(record: StageRecord) -> list[Curve]:
    """The curves with at least two finite points."""
    lines = {
        "training loss, nats per token": record.losses,
        "bits per byte on validation text": record.validation,
        "mean reward": record.rewards,
    }
    found = [Curve(title, [(step, value) for step, value in points]) for title, points in lines.items()]
    measured = [(point["step"], list(point["sources"].values())) for point in record.word_problems]
    for k in dict.fromkeys(f"pass@{k}" for _, sources in measured[:1] for k in (1, sources[0]["num_samples"])):
        values = [(step, fmean(of[k][0] for of in sources)) for step, sources in measured]
        alone = all(len(sources) == 1 for _, sources in measured)  # the mean of several has no interval
        band = [(sources[0][k][1], sources[0][k][2]) for _, sources in measured] if alone else []
        found.append(Curve(f"{k} on validation word problems", values, band))
    return [curve for curve in found if _drawable(curve)]


def _drawable(curve: Curve) -> bool:
    steps = [step for step, _ in curve.points]
    finite = all(math.isfinite(value) for point in curve.points for value in point)
    return len(steps) > 1 and finite and all(a < b for a, b in pairwise(steps))


def draw(record: StageRecord) -> str | None:
    """The panels one below the other; None where there is no curve."""
    if not (found := curves_of(record)):
        return None
    panels = "\n".join(_panel(curve, row * HEIGHT) for row, curve in enumerate(found))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {len(found) * HEIGHT}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        f"{panels}\n</svg>\n"
    )


def _panel(curve: Curve, top: int) -> str:
    every = math.ceil(len(curve.points) / MANY)
    points, band = _thinned(curve.points, every), _thinned(curve.band, every)
    values = [value for _, value in points] + [end for interval in band for end in interval]
    first, last, low, high = points[0][0], points[-1][0], min(values), max(values)
    high = high if high > low else low + (abs(low) or 1)  # a flat line

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return x, top + TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def path(line: list[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))

    steps = [step for step, _ in points]
    lows, highs = ([(s, interval[end]) for s, interval in zip(steps, band, strict=False)] for end in (0, 1))
    parts = [f'<text x="{LEFT}" y="{top + 18}" font-weight="bold">{curve.title}</text>']
    for value in (low, (low + high) / 2, high):
        _, y = place(first, value)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step in (first, (first + last) / 2, last):
        x, _ = place(step, low)
        parts.append(f'<text x="{x:.1f}" y="{top + HEIGHT - 20}" text-anchor="middle">{step:,.0f}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{top + HEIGHT - 4}" text-anchor="middle">step</text>')
    if band:
        parts.append(f'<polygon points="{path(highs)} {path(lows[::-1])}" fill="#1f6feb" fill-opacity="0.15"/>')
    parts.append(f'<polyline points="{path(points)}" fill="none" stroke="#1f6feb" stroke-width="2"/>')
    return "\n".join(parts)


def _thinned(values: list, every: int) -> list:
    """Every n-th, and the last one always."""
    return values[:-1:every] + values[-1:]
