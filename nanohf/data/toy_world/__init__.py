"""The toy world: the data source `builtin`, made by the package itself, so that the demo needs no network.

    from nanohf.data.toy_world import rows
    next(rows("problems", "train", size=1))    # {"question": "Ruth has 3 trays with ...", "answer": ...}

Row i depends on (seed, split, kind, i) alone: the same everywhere, and the first n rows of any larger size.

The test split of the problems asks for what training did not show:
- its people have names of their own;
- no combination of numbers occurs in both splits, worked examples inside the documents included: a checksum
  of the sorted numbers gives every fifth one to test;
- one problem in six comes from a template that only test has: a new wording of a known operation.

In reading order: `lexicon` has the people, the words and the facts about them, `grammar` the notation that all texts
are written in, and `problems`, `documents` and `conversations` make the rows of their kind.
"""

import random
from collections.abc import Iterator

from nanohf.data.toy_world.lexicon import EVERYBODY
from nanohf.data.toy_world.toy_conversations import conversation
from nanohf.data.toy_world.toy_documents import document, passage
from nanohf.data.toy_world.toy_word_problems import TEMPLATES, TEST_ONLY, problem

__all__ = [
    "EVERYBODY", "KINDS", "SPLITS", "TEMPLATES", "TEST_ONLY",
    "conversation", "document", "passage", "problem", "rows",
]  # fmt: skip

KINDS = ("documents", "conversations", "problems")
SPLITS = ("train", "test")


def rows(kind: str, split: str, size: int, seed: int = 0) -> Iterator[dict]:
    """Documents {text}, conversations {messages: [{role, content}, ...]} or problems {question, answer}."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not a kind of toy-world row. Use one of: {', '.join(KINDS)}.")
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not a split of the toy world. Use one of: {', '.join(SPLITS)}.")
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size={size!r} is not a number of rows, an integer of at least 1. Try 1000.")
    make = {"documents": document, "conversations": conversation, "problems": problem}[kind]
    return (make(random.Random(f"{seed}/{split}/{kind}/{index}"), split) for index in range(size))
