"""Word problems as primary schools set them: situations, told in many ways, with the steps of their solution.

A situation is a pattern of the toy world's notation (`toy_world.grammar`) with the words of `school_words`.
"""

import random
import re
from decimal import Decimal

from nanohf.data.school_world.school_situations import SITUATIONS, TEST_ONLY
from nanohf.data.school_world.school_words import MEMBERS, RULES, TEST_PEOPLE, TRAIN_PEOPLE
from nanohf.data.toy_world.grammar import Cast, tell
from nanohf.data.toy_world.lexicon import Member

TEST_ONLY_SHARE = 1 / 6  # of the test split
ASIDE = 0.12  # of the problems have a sentence with a number that nothing needs
_SENTENCE = re.compile(r"(?<=[.?!]) ")


class SchoolCast(Cast):
    """A thing brings one way of coming by it and one of parting with it; a second thing is of the first one's kind."""

    members, rules = MEMBERS, RULES

    def draw(self, key: str):
        taken = {str(value) for value in self.values()}
        first = self.get("thing") if key.startswith("thing") else None
        while str(value := super().draw(key)) in taken or (first and value.kind != first.kind):
            continue
        if not key.startswith("thing"):
            return value
        return Member(**vars(value) | {"got": self.rng.choice(value.got), "lost": self.rng.choice(value.lost)})


def school_problem(rng: random.Random, split: str) -> dict:
    """{question, answer}; in the test split other people, other numbers, and a sixth of the situations."""
    unseen = split == "test" and rng.random() < TEST_ONLY_SHARE
    situation = rng.choice(TEST_ONLY if unseen else SITUATIONS)
    numbers = situation.draw(rng, split)
    cast = SchoolCast(rng, TEST_PEOPLE if split == "test" else TRAIN_PEOPLE, **numbers)
    question = tell(rng.choice(situation.questions), cast)
    if rng.random() < ASIDE:
        question = with_aside(question, cast)
    return {"question": question, "answer": solution(situation, cast)}


def with_aside(question: str, cast: SchoolCast) -> str:
    """One more sentence, before the last one."""
    taken = {str(value) for value in cast.values()}
    cast["e"] = cast.rng.choice([n for n in range(3, 40) if str(n) not in taken])
    *told, asked = _SENTENCE.split(question)
    return " ".join([*told, tell("<aside>", cast), asked])


def solution(situation, cast: SchoolCast) -> str:
    """A line for each step with its calculator mark, and the result after ####."""
    lines = []
    for number, (x, sign, y, unit) in enumerate(situation.steps, 1):
        left, right, result = (written(cast[name]) for name in (x, y, f"r{number}"))
        lines.append(
            f"{left} {sign} {right} = <<{left}{sign}{right}={result}>>{result} {unit.format_map(cast)}".strip() + "."
        )
    return "\n".join([*lines, f"#### {result}"])


def written(number: int | Decimal) -> str:
    """As the calculator writes it: no zeros at the end of a fraction."""
    return f"{number.normalize():f}" if isinstance(number, Decimal) else str(number)
