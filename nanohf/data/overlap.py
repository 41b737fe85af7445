"""How much of a test stands in training data word for word, by windows of eight words.

A window is eight words in a row, whatever their case and punctuation; a shorter text is one window. Windows are
compared as they are, and with every number as 0, so that a copy with other numbers is found as well.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

WORDS = 8
HALF = 0.5
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*")

Window = tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """For each row of a test the share of its windows that occurs anywhere in the training texts, from 0 to 1."""

    as_written: list[float]
    masked: list[float]  # with every number as 0: never less

    @property
    def seen(self) -> set[int]:
        """The rows of which more than half occurs, numbers aside."""
        return _above_half(self.masked)

    @property
    def seen_as_written(self) -> set[int]:
        return _above_half(self.as_written)


def _above_half(shares: list[float]) -> set[int]:
    return {row for row, share in enumerate(shares) if share > HALF}


class TextOverlap:
    """Tests, {name: texts}, to be looked for in training texts.

    >>> tests = TextOverlap({"school": ["Tom has 3 red plums and eats 2 of them."]})
    >>> tests.overlap(["Tom has 7 red plums and eats 5 of them!"])
    {'school': Overlap(as_written=[0.0], masked=[1.0])}
    """

    def __init__(self, tests: Mapping[str, Iterable[str]]):
        texts = {name: [words(text) for text in rows] for name, rows in tests.items()}
        self.as_written = {name: [set(windows(row)) for row in rows] for name, rows in texts.items()}
        self.masked = {name: [set(windows(without_numbers(row))) for row in rows] for name, rows in texts.items()}

    def overlap(self, training: Iterable[str]) -> dict[str, Overlap]:
        """What the training texts have of each test. They are read once."""
        wanted, wanted_masked = _all(self.as_written), _all(self.masked)
        found: set[Window] = set()
        found_masked: set[Window] = set()
        for text in training:
            these = words(text)
            if here := wanted_masked.intersection(windows(without_numbers(these))):
                found_masked |= here
                found |= wanted.intersection(windows(these))
        return {
            name: Overlap(_shares(self.as_written[name], found), _shares(self.masked[name], found_masked))
            for name in self.masked
        }


def words(text: str) -> list[str]:
    """`Tom's 1,250 plums!` is tom's, 1,250 and plums."""
    return _WORD.findall(text.lower().replace("’", "'"))


def without_numbers(these: list[str]) -> list[str]:
    return ["0" if word[0].isdigit() else word for word in these]


def windows(these: list[str]) -> Iterator[Window]:
    if len(these) < WORDS:
        return iter([tuple(these)] if these else [])
    return zip(*(these[i:] for i in range(WORDS)), strict=False)


def _all(tests: dict[str, list[set[Window]]]) -> set[Window]:
    return {window for rows in tests.values() for row in rows for window in row}


def _shares(rows: list[set[Window]], found: set[Window]) -> list[float]:
    return [len(row & found) / max(1, len(row)) for row in rows]
