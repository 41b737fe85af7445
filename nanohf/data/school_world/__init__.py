"""The data source `builtin`, config `school_problems`: word problems as primary schools set them, made by the package.

    from nanohf.data.school_world import rows
    next(rows("school_problems", "train", size=1))    # {"question": "Lily has 14 plums. ...", "answer": ...}

The first n rows are the same whatever the size, and no question occurs twice. The test split has people of its own, no
combination of numbers that training has, and one row in six is of a situation whose wordings only test has.
"""

import random
from collections.abc import Iterator

from nanohf.data.school_world.school_problems import school_problem

KINDS = ("school_problems",)


def rows(kind: str, split: str, size: int, seed: int = 0) -> Iterator[dict]:
    """Word problems {question, answer} in GSM8K's format, with calculator marks."""
    seen: set[str] = set()
    for index in range(size):
        rng = random.Random(f"{seed}/{split}/{kind}/{index}")
        while (row := school_problem(rng, split))["question"] in seen:
            continue
        seen.add(row["question"])
        yield row
