"""Memory of the cards that recipes are planned for, by the makers' data sheets."""

import re
from dataclasses import dataclass

from nanohf.errors import RecipeError

GIGABYTES = {  # of 10^9 bytes; what a card reports is a little more
    "t4": 16, "l4": 24, "a10g": 24, "rtx3090": 24, "rtx4090": 24, "a100-40gb": 40, "l40s": 48, "a100": 80, "h100": 80,
    "h200": 141, "b200": 180,
}  # fmt: skip


@dataclass(frozen=True)
class Card:
    """So many of a card in one machine."""

    name: str
    count: int

    @property
    def bytes(self) -> float:
        return GIGABYTES[self.name] * 1e9


def read_card(text: str) -> Card:
    """`h100`, or `h100x8` for eight of them.

    Raises:
        RecipeError: no such card, or no number of them.
    """
    found = re.fullmatch(rf"({'|'.join(map(re.escape, GIGABYTES))})(?:x([1-9]\d*))?", text.lower())
    if found is None:
        raise RecipeError(f"--hardware {text}: the cards are {', '.join(GIGABYTES)}; h100x8 means eight of them")
    return Card(found[1], int(found[2] or 1))
