"""School problems: the arithmetic is right, the text clean, and the test split asks for what training did not show."""

import random
import re
from decimal import Decimal
from itertools import islice

import pytest

from nanohf.data.gsm8k import MARK, final_answer
from nanohf.data.school_world import rows
from nanohf.data.school_world.school_situations import SITUATIONS, TEST_ONLY
from nanohf.data.school_world.school_words import TEST_PEOPLE, TRAIN_PEOPLE
from nanohf.generation.calculator import calculate

CONSTANT = re.compile(r"\* (7|12|60) =|500 -")
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def train() -> list[dict]:
    return list(rows("school_problems", "train", 5000))


@pytest.fixture(scope="module")
def test() -> list[dict]:
    return list(rows("school_problems", "test", 2000))


def test_the_calculator_agrees_with_every_mark_and_the_last_one_is_the_answer(train, test):
    for row in train + test:
        marks = MARK.findall(row["answer"])
        assert 1 <= len(marks) <= 4
        assert all(calculate(expression) == result for expression, result in marks), row
        assert final_answer(row["answer"]) == marks[-1][1]


def test_a_solution_uses_the_questions_numbers_results_and_few_constants(train, test):
    for row in train + test:
        known = {Decimal(number) for number in NUMBER.findall(row["question"])} | {Decimal(n) for n in (7, 12, 60, 500)}
        for expression, result in MARK.findall(row["answer"]):
            assert {Decimal(number) for number in NUMBER.findall(expression)} <= known, row
            known.add(Decimal(result))


def test_the_english_is_clean(train, test):
    for row in train + test:
        for text in (row["question"], row["answer"].partition("\n####")[0]):
            assert not re.search(r"[<>{}|_]|  | [.,?!]|\.\.|\ba [aeiou]|\ba hour|\ban [^aeiouh]", MARK.sub("", text)), (
                text
            )
        assert re.match(r"[A-Z0-9]", row["question"])
        assert row["question"][-1] in "?."
        assert not re.search(r"[.?!] [a-z]", row["question"]), row["question"]


def test_no_question_occurs_twice_and_a_longer_table_begins_with_the_shorter(train):
    assert len({row["question"] for row in train}) == len(train)
    assert list(islice(rows("school_problems", "train", 10**9), 50)) == train[:50]
    assert list(rows("school_problems", "train", 50, seed=1)) != train[:50]


def test_the_test_split_has_other_people_and_other_numbers(train, test):
    ours, others = {str(p) for p in TRAIN_PEOPLE}, {str(p) for p in TEST_PEOPLE}
    assert not ours & others
    assert not any(others & set(re.findall(r"\w+", row["question"])) for row in train)
    assert not any(ours & set(re.findall(r"\w+", row["question"])) for row in test)
    made = [[row["answer"] for row in split if not CONSTANT.search(row["answer"])] for split in (train, test)]
    used = [{tuple(MARK.findall(answer)) for answer in answers} for answers in made]
    assert not used[0] & used[1]


def test_a_sixth_of_the_test_split_is_of_situations_that_training_lacks(train, test):
    told = [re.sub(r"\\{.*?\\}", ".+?", re.escape(question)) for s in TEST_ONLY for question in s.questions]
    only = [re.compile(f"{text[:-2]}.*") for text in told]  # an aside may stand before the last sentence
    assert not [row for row in train if any(pattern.fullmatch(row["question"]) for pattern in only)]
    shown = sum(any(pattern.fullmatch(row["question"]) for pattern in only) for row in test)
    assert len(test) / 8 < shown < len(test) / 5


def test_every_situation_gives_problems():
    """Ranges without a solution would draw for ever."""
    for situation in (*SITUATIONS, *TEST_ONLY):
        for split in ("train", "test"):
            numbers = situation.draw(random.Random(1), split)
            assert all(f"r{i}" in numbers for i in range(1, len(situation.steps) + 1))
