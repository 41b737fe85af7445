"""Spelling and letter counting: every answer is right, by the calculator too, and test words are new."""

import re

import pytest

from nanohf.data import gsm8k, spelling
from nanohf.data.chat_source import ChatSource
from nanohf.data.conversations import conversations
from nanohf.generation.calculator import calculate

SIZE = 3000


def said(row: dict) -> tuple[str, list[dict]]:
    user, assistant = row["messages"]
    assert (user["role"], assistant["role"]) == ("user", "assistant")
    return user["content"][0]["text"], assistant["content"]


def unquoted(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]+", text))


@pytest.mark.parametrize("split", spelling.SPLITS)
def test_words_are_spelled_letter_by_letter(split):
    known = set(spelling.words(split))
    for row in spelling.rows("spelling", split, SIZE):
        question, [part] = said(row)
        letters = re.search(r"\b[a-z](-[a-z])+\b", part["text"])[0]
        word = letters.replace("-", "")
        assert word in known
        assert word in unquoted(question)
        assert len(letters) == 2 * len(word) - 1


@pytest.mark.parametrize("split", spelling.SPLITS)
def test_letters_are_counted(split):
    known = set(spelling.words(split))
    for row in spelling.rows("letter_counting", split, SIZE):
        question, [spelled, call, output, rest] = said(row)
        word, letter = re.fullmatch(r'"([a-z]+)"\.count\("([a-z])"\)', call["text"]).groups()
        assert word in known
        assert {word, letter} <= unquoted(question)
        assert "-".join(word) in spelled["text"]
        assert [part["type"] for part in (spelled, call, output, rest)] == ["text", "python", "python_output", "text"]
        assert calculate(call["text"]) == output["text"] == str(sum(c == letter for c in word))
        assert gsm8k.is_correct(rest["text"], f"#### {output['text']}")
        assert (f"{output['text']} times" in rest["text"]) != (output["text"] == "1")


def test_the_splits_share_no_word_and_no_form_of_one():
    train, test = (spelling.words(split) for split in spelling.SPLITS)
    assert len(train) > 700
    assert len(test) > 80
    assert not set(train) & set(test)
    for word in test:
        assert not {f"{word}s", f"{word}ing", word.removesuffix("s"), word.removesuffix("ing")} & set(train), word


def test_words_are_plain():
    words = spelling.words("train") + spelling.words("test")
    assert len(set(words)) == len(words)
    assert all(re.fullmatch(r"[a-z]{2,}", word) for word in words)
    assert {"strawberries", "volcanoes", "mattresses", "journeys", "pronouncing"} <= set(words)


def test_there_are_many_phrasings_and_counts():
    rows = list(spelling.rows("letter_counting", "train", SIZE))
    questions = {re.sub(r"['\"]\w+['\"]", "_", said(row)[0]) for row in rows}
    assert len({q for q in questions if q.count("_") == 2}) >= len(spelling.COUNT)
    assert {said(row)[1][2]["text"] for row in rows} >= {"0", "1", "2", "3"}


@pytest.mark.parametrize("kind", spelling.KINDS)
def test_rows_depend_on_their_number_alone(kind):
    first = list(spelling.rows(kind, "train", 50))
    assert list(spelling.rows(kind, "train", 100))[:50] == first
    assert list(spelling.rows(kind, "train", 50, seed=1)) != first
    assert list(spelling.rows(kind, "test", 50)) != first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("speling", "train", 1), "kind='speling'.*spelling, letter_counting"),
        (("spelling", "validation", 1), "split='validation'.*train, test"),
        (("spelling", "train", 0), "size=0"),
    ],
)
def test_mistakes(arguments, says):
    with pytest.raises(ValueError, match=says):
        spelling.rows(*arguments)


@pytest.mark.parametrize("kind", spelling.KINDS)
def test_they_are_builtin_sources(kind):
    table, faults = conversations(ChatSource("builtin", "messages", config=kind, split="test", rows=40))
    assert (len(table), len(faults)) == (40, 0)
    assert sorted(map(str, table.to_list())) == sorted(map(str, spelling.rows(kind, "test", 40)))
