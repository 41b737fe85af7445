"""The bits per byte that a pretraining run printed, as a picture: curve.py RUN.log > curve.svg"""

import re
import sys
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 360, 48
STEP = re.compile(r"^step ([\d,]+) \| ([\d.]+) bits per byte", re.MULTILINE)
BATCH = re.compile(r"^a step: ([\d,]+) tokens", re.MULTILINE)


def number(text: str) -> float:
    return float(text.replace(",", ""))


def draw(log: str) -> str:
    batch = number(BATCH.search(log)[1])
    points = [(number(step) * batch / 1e6, float(bpb)) for step, bpb in STEP.findall(log) if step != "0"]
    last, low, high = points[-1][0], min(y for _, y in points), max(y for _, y in points)

    def place(tokens: float, bpb: float) -> tuple[float, float]:
        right, down = tokens / last, (high - bpb) / (high - low)
        return MARGIN + right * (WIDTH - 2 * MARGIN), MARGIN + down * (HEIGHT - 2 * MARGIN)

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    labels = [(*place(*points[i]), f"{points[i][1]:.3f}") for i in (0, len(points) // 2, -1)]
    texts = "".join(f'<text x="{x:.0f}" y="{y - 8:.0f}" text-anchor="middle">{t}</text>' for x, y, t in labels)
    ticks = "".join(
        f'<text x="{place(m, low)[0]:.0f}" y="{HEIGHT - 20}" text-anchor="middle">{m:.0f}</text>'
        for m in (last * i / 4 for i in range(5))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>{texts}{ticks}'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">million tokens</text>'
        f'<text x="{MARGIN}" y="20">bits per byte on validation text</text></svg>'
    )


if __name__ == "__main__":
    print(draw(Path(sys.argv[1]).read_text()))
