"""Windows of eight words: against plain substring search, and on the real sets that the recipes are measured by."""

import os
import random

import pytest

from nanohf.data import school_world, small_talk, spelling, toy_world
from nanohf.data.chat_source import ChatSource
from nanohf.data.overlap import TextOverlap
from nanohf.data.tables import open_table
from nanohf.doctor.overlap_checks import chat_texts

MADE = {kind for made in (toy_world, school_world, small_talk, spelling) for kind in made.KINDS} - {"documents"}
REAL = os.environ.get("NANOHF_TEST_DATA")
ROW = "Mia's basket has 24 pears, 8 plums and 3 figs; how many fruits are in it?"


def shares(test: str, *training: str) -> tuple[float, float]:
    (overlap,) = TextOverlap({"test": [test]}).overlap(training).values()
    return overlap.as_written[0], overlap.masked[0]


def test_case_punctuation_and_quotes_do_not_count_numbers_do():
    assert shares(ROW, f"Before. {ROW.upper().replace(',', ' --')} After.") == (1, 1)
    assert shares(ROW, ROW.replace("'", "’")) == (1, 1)
    assert shares(ROW, ROW.replace("24", "1,250")) == (5 / 9, 1)  # the windows behind the number
    assert shares(ROW, ROW.replace("pears", "nuts")) == (4 / 9, 4 / 9)
    assert shares(ROW, "Mia's basket has 24 pears, 8 plums", "and 3 figs; how many fruits are in it?") == (2 / 9, 2 / 9)


def test_a_text_of_fewer_words_is_one_window():
    assert shares("What is 3 + 5?", "What is 3 - 5?", "Say: what is 3 + 5?") == (1, 1)
    assert shares("What is 3 + 5?", "Say: what is 3 + 5?") == (0, 0)
    assert shares("", "", "Nothing.") == (0, 0)


def test_as_substring_search_finds_them():
    """Texts of five words, so that windows meet by chance, within a text and never across two."""
    draw = random.Random(0)
    tests, training = ([" ".join(draw.choices("abcde", k=draw.randint(3, 40))) for _ in range(n)] for n in (30, 400))
    expected = []
    for text in tests:
        parts = text.split()
        windows = {" ".join(parts[i : i + 8]) for i in range(max(1, len(parts) - 7))}
        hits = [w for w in windows if any(w == t if len(w.split()) < 8 else w in t for t in training)]
        expected.append(len(hits) / len(windows))
    overlap = TextOverlap({"a": tests[:10], "b": tests[10:]}).overlap(iter(training))
    assert overlap["a"].as_written + overlap["b"].masked == expected
    assert 0 < sum(expected) < len(expected)
    assert overlap["a"].seen == {i for i, share in enumerate(expected[:10]) if share > 0.5}


@pytest.fixture(scope="module")
def real_tests():
    if not REAL:
        pytest.skip("NANOHF_TEST_DATA is not set")
    tables = {"gsm8k": open_table(f"{REAL}/gsm8k", "test", "main"), "real": open_table(f"{REAL}/math_problems", "test")}
    return TextOverlap({name: table.data["question"] for name, table in tables.items()})


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("kind", sorted(MADE))
def test_what_the_package_makes_comes_from_no_test(real_tests, kind):
    texts = chat_texts(ChatSource("builtin", config=kind, rows=20_000))
    for name, overlap in real_tests.overlap(texts).items():
        assert not overlap.seen, (name, max(overlap.masked))


@pytest.mark.realdata
def test_gsm8k_trains_on_three_of_its_test_rows(real_tests):
    """One of them word for word: such a row would be found."""
    training = open_table(f"{REAL}/gsm8k", "train", "main").data["question"]
    overlap = real_tests.overlap(training)["gsm8k"]
    assert (len(overlap.seen), len(overlap.seen_as_written)) == (3, 1)
