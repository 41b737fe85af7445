"""Word problems: templates of questions and answers, which numbers and a cast turn into one word problem."""

import operator
import random
import re
import zlib
from collections.abc import Iterable
from decimal import Decimal

from nanohf.data.toy_world.grammar import Cast, tell
from nanohf.data.toy_world.lexicon import TEST_PEOPLE, TRAIN_PEOPLE

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
STEP = re.compile(r"\[(\w+)([-+*/])(\w+)\]")


def held_out(numbers: Iterable[int | Decimal]) -> bool:
    """Whether this combination of numbers, in whatever order, belongs to the test split."""
    return zlib.crc32(",".join(map(str, sorted(numbers))).encode()) % 5 == 0


class Template:
    """A kind of word problem: its answer, line by line, and the wordings of its question.

    The answer carries the arithmetic: `[a*b]` is a step on the question's numbers a, b, c, d; r1 and r2 are
    the results of earlier steps. A number is drawn from 2..60, or from the range given, (low, high), or as a
    multiple of an earlier number, ("b", low, high). A number that no step uses is there to be ignored.
    """

    def __init__(self, answer: str, *questions: str, **ranges: tuple):
        self.answer, self.questions = answer, questions
        self.steps = STEP.findall(answer)
        names = re.findall(r"{([a-d])}", questions[0])
        self.ranges = ranges | {name: (2, 60) for name in sorted(names) if name not in ranges}

    def draw(self, rng: random.Random, split: str) -> dict[str, int]:
        """Different numbers of this split whose steps are exact, with results in 2..999; also the results."""
        while True:
            numbers: dict[str, int] = {}
            for name, (*unit, low, high) in self.ranges.items():
                numbers[name] = rng.randint(low, high) * (numbers[unit[0]] if unit else 1)
            drawn = set(numbers.values())
            if len(drawn) == len(numbers) and held_out(drawn) == (split == "test") and self.solve(numbers):
                return numbers

    def solve(self, numbers: dict[str, int]) -> bool:
        """Add the result of each step to the numbers, as r1, r2, ...; whether all of them are allowed."""
        for i, (left, sign, right) in enumerate(self.steps, 1):
            x, y = numbers[left], numbers[right]
            numbers[f"r{i}"] = result = OPERATIONS[sign](x, y)
            if not 2 <= result < 1000 or (sign == "/" and x % y):
                return False
        return True

    def solution(self, cast: Cast, form: str, lead: str = "") -> str:
        """The answer in words; `form` says how a step is written: its x, sign, y and result."""
        steps = iter(range(1, len(self.steps) + 1))

        def written(step: re.Match) -> str:
            x, sign, y = step.groups()
            return form.format(x=cast[x], sign=sign, y=cast[y], result=cast[f"r{next(steps)}"])

        return STEP.sub(written, tell(lead + self.answer, cast))


def problem(rng: random.Random, split: str) -> dict:
    steps = rng.choices((1, 2, 3), (40, 35, 25))[0]
    unseen = split == "test" and rng.random() < 1 / 6
    template = rng.choice((TEST_ONLY if unseen else TEMPLATES)[steps])
    cast = Cast(rng, TEST_PEOPLE if split == "test" else TRAIN_PEOPLE, **template.draw(rng, split))
    question = tell(rng.choice(template.questions), cast)
    answer = template.solution(cast, "{x} {sign} {y} = <<{x}{sign}{y}={result}>>{result}")
    return {"question": question, "answer": f"{answer}\n#### {cast[f'r{steps}']}"}


# ---------------------------------------------------------------- the templates, by how many steps they take

T = Template
_SMALL, _MANY = (2, 12), (2, 30)
_SHARE = {"b": (2, 12), "a": ("b", 2, 20)}

# fmt: off
ONE_STEP = (
    # +
    T("{A} has [a+b] {thing} now.",
      "{A} has {a} {thing}. {A.he} <gets> {b} more {thing}. <ask_now>",
      "{A} <gets> {b} {thing}. Before that {A.he} had {a}. <ask_now>",
      "{B} gives {A} {b} {thing}. {A} already had {a} {thing}. <ask_now>"),
    T("{A} has [a+b] things altogether.",
      "{A} has {a} {thing} and {b} {thing2}. How many things does {A.he} have altogether?",
      "How many things does {A} have altogether if {A.he} has {a} {thing} and {b} {thing2}?"),
    T("{B} has [a+b] {thing}.",
      "{A} has {a} {thing}. {B} has {b} more {thing} than {A}. <ask_b>",
      "{B} has {b} more {thing} than {A}, who has {a} {thing}. <ask_b>"),
    T("at first {A} had [a+b] {thing}.",
      "{A} <lost> {b} {thing}. Now {A.he} has {a} left. <ask_first>",
      "{A} has {a} {thing} left because {A.he} <lost> {b}. <ask_first>"),
    T("{A} has [a+b] {thing} now.",
      "{A} is {c} years old and has {a} {thing}. {A.he} <gets> {b} more {thing}. <ask_now>",
      "{A} has {a} {thing} and <gets> {b} more {thing} in {c} days. <ask_now>"),
    # -
    T("{A} has [a-b] {thing} left.",
      "{A} has {a} {thing}. {A.he} <loses> {b} {thing}. <ask_left>",
      "{A} <loses> {b} of {A.his} {a} {thing}. <ask_left>"),
    T("{A} has [a-b] more {thing} than {thing2}.",
      "{A} has {a} {thing} and {b} {thing2}. How many more {thing} than {thing2} does {A.he} have?",
      "{A} has {b} {thing2} and {a} {thing}. How many more {thing} than {thing2} does {A.he} have?"),
    T("{B} has [a-b] {thing}.",
      "{A} has {a} {thing}. {B} has {b} fewer {thing} than {A}. <ask_b>",
      "{B} has {b} fewer {thing} than {A}, who has {a} {thing}. <ask_b>"),
    T("{A} needs [a-b] more {thing}.",
      "{A} wants {a} {thing}. {A.he} has {b} {thing}. How many more {thing} does {A.he} need?",
      "{A} has {b} {thing} but needs {a} {thing}. How many more {thing} does {A.he} need?"),
    T("{A} has [a-b] {thing} left.",
      "{A} has {a} {thing} and {c} {thing2}. {A.he} <loses> {b} {thing}. <ask_left>",
      "{A} has {c} {thing2} and {a} {thing}. {A.he} gives {b} {thing} to {B}. <ask_left>"),
    # *
    T("the {box} hold [a*b] {thing}.",
      "{A} has {a} {box}. There are {b} {thing} in each {box.one}. How many {thing} are there?",
      "There are {b} {thing} in each {box.one}. {A} has {a} {box}. How many {thing} are there?",
      a=_SMALL, b=_MANY),
    T("{B} has [a*b] {thing}.",
      "{A} has {a} {thing}. {B} has {b} times as many {thing} as {A}. <ask_b>",
      "{B} has {b} times as many {thing} as {A}, who has {a} {thing}. <ask_b>",
      a=_MANY, b=_SMALL),
    T("{A} pays [a*b] coins.",
      "One {thing.one} costs {b} coins. {A} buys {a} {thing}. <ask_pay>",
      "{A} buys {a} {thing}. Each {thing.one} costs {b} coins. <ask_pay>",
      a=_SMALL, b=_MANY),
    T("that is [a*b] {thing}.",
      "{A} <makes> {a} {thing} every day. How many {thing} is that in {b} days?",
      "For {b} days {A} <makes> {a} {thing} every day. How many {thing} is that?",
      a=_MANY, b=_SMALL),
    # /
    T("each {friend.one} gets [a/b] {thing}.",
      "{A} shares {a} {thing} equally among {b} {friend}. <ask_each>",
      "{b} {friend} share {a} {thing} equally. <ask_each>",
      **_SHARE),
    T("{A} fills [a/b] {box}.",
      "{A} has {a} {thing}. {A.he} puts {b} {thing} in each {box.one}. <ask_fill>",
      "{A} puts {b} {thing} in each {box.one} until all {a} {thing} are packed. <ask_fill>",
      **_SHARE),
    T("one {thing.one} costs [a/b] coins.",
      "{A} pays {a} coins for {b} {thing}. How many coins does one {thing.one} cost?",
      "{b} {thing} cost {a} coins. How many coins does one {thing.one} cost?",
      **_SHARE),
    T("{B} has [a/b] {thing}.",
      "{A} has {a} {thing}. That is {b} times as many {thing} as {B} has. <ask_b>",
      "{A} has {b} times as many {thing} as {B}. {A} has {a} {thing}. <ask_b>",
      **_SHARE),
)

TWO_STEP = (
    T("the {box} hold [a*b] {thing}.\n{A} has [r1-c] {thing} left.",
      "{A} has {a} {box} with {b} {thing} in each {box.one}. {A.he} <loses> {c} {thing}. <ask_left>",
      "There are {b} {thing} in each {box.one}. {A} has {a} {box} and <loses> {c} {thing}. <ask_left>",
      a=_SMALL, b=_MANY),
    T("the {box} hold [a*b] {thing}.\n{A} has [r1+c] {thing} now.",
      "{A} has {a} {box} with {b} {thing} in each {box.one}. {A.he} <gets> {c} more {thing}. <ask_now>",
      "{A} <gets> {c} {thing}. {A.he} already had {a} {box} with {b} {thing} in each. <ask_now>",
      a=_SMALL, b=_MANY),
    T("{A} has [a+b] {thing}.\n{A} has [r1-c] {thing} left.",
      "{A} has {a} {thing} and <gets> {b} more. Then {A.he} <loses> {c}. <ask_left>",
      "{A} <gets> {b} {thing}. Before that {A.he} had {a}. Now {A.he} gives {c} to {B}. <ask_left>"),
    T("{A} has [a-b] {thing}.\n{A} has [r1+c] {thing} now.",
      "{A} has {a} {thing} and <loses> {b}. Then {A.he} <gets> {c} more. <ask_now>",
      "{A} <loses> {b} of {A.his} {a} {thing}. {B} gives {A.him} {c} more. <ask_now>"),
    T("together they have [a+b] {thing}.\neach {friend.one} gets [r1/c] {thing}.",
      "{A} has {a} {thing} and {B} has {b} {thing}. They share all of them equally among {c} {friend}. <ask_each>",
      "{c} {friend} share the {thing} of {A} and {B} equally. {A} has {a} and {B} has {b}. <ask_each>",
      c=(2, 9)),
    T("{A} pays [b*c] coins.\n{A} has [a-r1] coins left.",
      "{A} has {a} coins. {A.he} buys {b} {thing}. Each {thing.one} costs {c} coins. <ask_coins>",
      "One {thing.one} costs {c} coins. {A} has {a} coins and buys {b} {thing}. <ask_coins>",
      a=(40, 200), b=_SMALL, c=_SMALL),
    T("each {friend.one} gets [a/b] {thing}.\n{B} has [r1+c] {thing} now.",
      "{A} shares {a} {thing} equally among {b} {friend}. {B} is one of them and already had {c} {thing}. "
          "How many {thing} does {B} have now?",
      "{B} has {c} {thing}. {B} and other {friend}, {b} altogether, share {a} more {thing} equally. "
          "How many {thing} does {B} have now?",
      **_SHARE),
    T("{A} has [a-b] {thing} left.\n{A} fills [r1/c] {box}.",
      "{A} has {a} {thing} and <loses> {b}. {A.he} puts the others in {box}, {c} in each. <ask_fill>",
      "{A} <loses> {b} of {A.his} {a} {thing}. Then {A.he} puts {c} {thing} in each {box.one}. <ask_fill>",
      a=(12, 90), c=(2, 9)),
    T("{B} has [a*b] {thing}.\ntogether they have [a+r1] {thing}.",
      "{A} has {a} {thing}. {B} has {b} times as many {thing} as {A}. <ask_both>",
      "{B} has {b} times as many {thing} as {A}, who has {a}. <ask_both>",
      a=_MANY, b=_SMALL),
    T("{B} has [a+b] {thing}.\ntogether they have [a+r1] {thing}.",
      "{A} has {a} {thing}. {B} has {b} more {thing} than {A}. <ask_both>",
      "{B} has {b} more {thing} than {A}, who has {a}. <ask_both>"),
    T("{B} has [a-b] {thing}.\ntogether they have [a+r1] {thing}.",
      "{A} has {a} {thing}. {B} has {b} fewer {thing} than {A}. <ask_both>",
      "{B} has {b} fewer {thing} than {A}, who has {a}. <ask_both>"),
    T("every day {A} has [a+b] {thing}.\nthat is [r1*c] {thing} altogether.",
      "Every day {A} <makes> {a} {thing} in the morning and {b} in the evening. "
          "How many {thing} is that in {c} days?",
      "For {c} days {A} <makes> {a} {thing} every morning and {b} {thing} every evening. How many {thing} is that?",
      c=_SMALL),
    T("the {box} hold [a*b] {thing}.\neach {friend.one} gets [r1/c] {thing}.",
      "{A} has {a} {box} with {b} {thing} in each {box.one}. {A.he} shares them equally among {c} {friend}. "
          "<ask_each>",
      "{c} {friend} share {a} {box} equally. There are {b} {thing} in each {box.one}. <ask_each>",
      c=(2, 9), a=_SMALL, b=_MANY),
    T("{A} has [a+b] {thing}.\n{A} has [r1-c] {thing} left.",
      "{A} has {a} {thing} and {d} {thing2}. {A.he} <gets> {b} more {thing} and gives away {c} {thing}. <ask_left>",
      "{A} is {d} years old. {A.he} has {a} {thing} and gets {b} more from {B}. "
          "Then {A.he} (loses|sells) {c}. <ask_left>"),
)

THREE_STEP = (
    T("the {thing} cost [a*b] coins.\nthe {thing2} cost [c*d] coins.\n{A} pays [r1+r2] coins.",
      "{A} buys {a} {thing} for {b} coins each and {c} {thing2} for {d} coins each. "
          "How many coins does {A} pay altogether?",
      "A {thing.one} costs {b} coins and a {thing2.one} costs {d} coins. "
          "{A} buys {a} {thing} and {c} {thing2}. <ask_pay>",
      a=_SMALL, b=_MANY, c=_SMALL, d=_MANY),
    T("{A} has [a*b] {thing}.\n{B} has [c*d] {thing}.\n{A} has [r1-r2] more {thing} than {B}.",
      "{A} has {a} {box} with {b} {thing} in each. {B} has {c} {box} with {d} {thing} in each. "
          "How many more {thing} than {B} does {A} have?",
      "{B} has {c} {box} with {d} {thing} in each. {A} has {a} {box} with {b} {thing} in each. "
          "How many more {thing} than {B} does {A} have?",
      a=_SMALL, b=_MANY, c=_SMALL, d=_MANY),
    T("the {box} hold [a*b] {thing}.\n{A} has [r1+c] {thing}.\n{A} has [r2-d] {thing} left.",
      "{A} has {a} {box} with {b} {thing} in each. {A.he} <gets> {c} more {thing} and <loses> {d}. <ask_left>",
      "{A} <gets> {c} {thing}. {A.he} already had {a} {box} with {b} {thing} in each. "
          "Then {A.he} gives {d} to {B}. <ask_left>",
      a=_SMALL, b=_MANY),
    T("{A} has [a+b] {thing}.\n{A} has [r1-c] {thing} left.\n{A} fills [r2/d] {box}.",
      "{A} has {a} {thing}, <gets> {b} more and <loses> {c}. {A.he} puts the others in {box}, {d} in each. "
          "<ask_fill>",
      "{A} <gets> {b} {thing}. Before that {A.he} had {a}. Now {A.he} gives {c} to {B} and puts {d} {thing} "
          "in each {box.one}. <ask_fill>",
      d=(2, 9)),
    T("the {box} hold [a*b] {thing}.\n{A} has [r1-c] {thing} left.\neach {friend.one} gets [r2/d] {thing}.",
      "{A} has {a} {box} with {b} {thing} in each. {A.he} <loses> {c} {thing} and shares the others equally "
          "among {d} {friend}. <ask_each>",
      "{d} {friend} share {a} {box} of {thing} equally. There were {b} {thing} in each {box.one}, "
          "but {c} {thing} are lost. <ask_each>",
      d=(2, 9), a=_SMALL, b=_MANY),
    T("{B} has [a*b] {thing}.\ntogether they have [a+r1] {thing}.\nthey have [r2-c] {thing} left.",
      "{A} has {a} {thing}. {B} has {b} times as many {thing} as {A}. Together they <lose> {c} {thing}. "
          "How many {thing} do they have left?",
      "{B} has {b} times as many {thing} as {A}, who has {a}. They <lose> {c} of all their {thing}. "
          "How many {thing} do they have left?",
      a=_MANY, b=_SMALL),
    T("{B} has [a+b] {thing}.\ntogether they have [a+r1] {thing}.\neach {friend.one} gets [r2/c] {thing}.",
      "{A} has {a} {thing}. {B} has {b} more {thing} than {A}. They share all of them equally among {c} "
          "{friend}. <ask_each>",
      "{B} has {b} more {thing} than {A}, who has {a}. {c} {friend} share all of their {thing} equally. <ask_each>",
      c=(2, 9)),
    T("{A} has [a-b] {thing} left.\n{A} gets [r1*c] coins.\n{A} has [r2+d] coins now.",
      "{A} has {a} {thing}, but loses {b}. {A.he} sells the others for {c} coins each. "
          "{A.he} already had {d} coins. How many coins does {A} have now?",
      "{A} has {d} coins. {A.he} loses {b} of {A.his} {a} {thing} and sells the others for {c} coins each. "
          "How many coins does {A} have now?",
      c=_SMALL),
    T("the {thing} cost [b*c] coins.\n{A} pays [r1+d] coins.\n{A} has [a-r2] coins left.",
      "{A} has {a} coins. {A.he} buys {b} {thing} for {c} coins each and a {thing2.one} for {d} coins. <ask_coins>",
      "A {thing2.one} costs {d} coins and a {thing.one} costs {c} coins. "
          "{A} has {a} coins and buys one {thing2.one} and {b} {thing}. <ask_coins>",
      a=(60, 300), b=_SMALL, c=_SMALL),
    T("at first there are [a/b] {thing} in each {box.one}.\n"
          "then there are [r1+c] {thing} in each {box.one}.\n{A} sells [r2*d] {thing}.",
      "{A} puts {a} {thing} equally in {b} {box}. Then {A.he} puts {c} more in each {box.one} and sells {d} "
          "{box}. How many {thing} does {A} sell?",
      "There are {a} {thing} in {b} {box}, the same number in each. "
          "{A} puts {c} more in each and sells {d} {box}. How many {thing} does {A} sell?",
      b=(6, 12), a=("b", 2, 20), c=_MANY, d=(2, 5)),
)

# Only in the test split: new wordings of the operations above, in words that the documents know.
TEST_ONLY = {
    1: (
        T("there are [a+b] {thing}.",
          "There are {a} {thing} on the table and {b} {thing} under the table. <ask_total>",
          "In the house of {A} there are {a} {thing} on the table and {b} in a {box.one}. <ask_total>"),
        T("{B} has [a-b] {thing}.",
          "{A} and {B} have {a} {thing} together. {b} of them belong to {A}. How many {thing} belong to {B}?",
          "{b} {thing} belong to {A} and the others belong to {B}. Together they have {a}. "
              "How many {thing} belong to {B}?"),
        T("there are [a*b] {thing}.",
          "{A} puts {thing} on the table in {a} rows. Each row has {b} {thing}. How many {thing} are on the table?",
          "There are {b} {thing} in every row, and {A} makes {a} rows. <ask_total>",
          a=_SMALL, b=_MANY),
        T("each group has [a/b] {thing}.",
          "{A} splits {a} {thing} into {b} equal groups. How many {thing} are in each group?",
          "{A} makes {b} equal piles of {thing}. {A.he} has {a} {thing}. How many {thing} are in each pile?",
          **_SHARE),
    ),
    2: (
        T("{A} earns [a*b] coins.\n{A} has [r1-c] coins left.",
          "{A} earns {a} coins every day for {b} days. Then {A.he} spends {c} coins. <ask_coins>",
          "{A} spends {c} of the coins {A.he} earns. {A.he} earns {a} coins a day and works {b} days. <ask_coins>",
          a=_MANY, b=_SMALL),
        T("{A} has [a+b] {thing}.\neach group has [r1/c] {thing}.",
          "{A} splits {a} red {thing} and {b} blue {thing} into {c} equal groups. "
              "How many {thing} are in each group?",
          "{A} makes {c} equal piles of all {A.his} {thing}: {a} old ones and {b} new ones. "
              "How many {thing} are in each pile?",
          c=(2, 9)),
        T("there are [a*b] {thing} in the rows.\nthere are [r1+c] {thing} in total.",
          "{A} makes {a} rows of {b} {thing}. {c} more {thing} are in a {box.one}. <ask_total>",
          "There are {c} {thing} in a {box.one} and {a} rows of {b} {thing} on the table. <ask_total>",
          a=_SMALL, b=_MANY),
    ),
    3: (
        T("{A} earns [a*b] coins.\n{A} has [r1-c] coins left.\neach {friend.one} gets [r2/d] coins.",
          "{A} earns {a} coins every day for {b} days and spends {c} coins. "
              "{A.he} splits the rest equally among {d} {friend}. How many coins does each {friend.one} get?",
          "{d} {friend} share what {A} does not spend. {A} earns {a} coins a day for {b} days and spends "
              "{c}. How many coins does each {friend.one} get?",
          d=(2, 9), a=_MANY, b=_SMALL),
        T("there are [a*b] {thing}.\nthere are [c*d] {thing2}.\nthere are [r1+r2] things in total.",
          "{A} makes {a} rows of {b} {thing} and {c} rows of {d} {thing2}. How many things are there in total?",
          "Each row of {thing} has {b}, and each row of {thing2} has {d}. "
              "{A} makes {a} rows of {thing} and {c} of {thing2}. How many things are there in total?",
          a=_SMALL, b=_MANY, c=_SMALL, d=_MANY),
        T("{A} has [a+b] {thing}.\n{A} has [r1-c] {thing} left.\n{A} earns [r2*d] coins.",
          "{A} picks {a} {thing} in the morning and {b} at noon. {c} of them are bad. "
              "{A.he} sells the rest for {d} coins each. How many coins does {A} earn?",
          "{A} earns {d} coins for each {thing.one}. {A.he} has {a} big and {b} small ones, "
              "but {c} of them are bad. How many coins does {A} earn?",
          d=_SMALL),
    ),
}
# fmt: on
TEMPLATES = {1: ONE_STEP, 2: TWO_STEP, 3: THREE_STEP}
