"""The toy world: the same everywhere, right in its sums, its test problems unseen in training."""

import hashlib
import itertools
import json
import re
from collections import Counter

import pytest

from nanohf.data import toy_world as world
from nanohf.data.toy_world import KINDS, rows
from nanohf.data.toy_world.grammar import Cast
from nanohf.data.toy_world.lexicon import MEMBERS, TEST_PEOPLE, TRAIN_PEOPLE

NOUNS = [noun for kind in ("thing", "box", "friend") for noun in MEMBERS[kind]]
NAMES = {
    split: [person.name for person in people] for split, people in (("train", TRAIN_PEOPLE), ("test", TEST_PEOPLE))
}
STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = <<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)")
ANSWER = re.compile(rf"([A-Z][A-Za-z ]*{STEP.pattern} [A-Za-z ]+\.\n){{1,3}}#### \d+")

_name = re.compile(rf"\b(?:{'|'.join(NAMES['train'] + NAMES['test'])})\b")
_noun = re.compile(rf"\b(?:{'|'.join(w for noun in NOUNS for w in (noun.name, noun.one))})\b", re.IGNORECASE)


def without_names(text: str) -> str:
    return _name.sub("NAME", text)


def skeleton(text: str) -> str:
    """What is left of a problem without its names, pronouns, things and numbers: its wording."""
    text = _noun.sub("NOUN", re.sub(r"\d+", "N", without_names(text)))
    text = re.sub(r"\b(?:he|she|his|her|him)\b", "HE", text, flags=re.IGNORECASE)
    return re.sub(r"\ban?\b", "a", text, flags=re.IGNORECASE)


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


@pytest.fixture(scope="module")
def train() -> list[dict]:
    return list(rows("problems", "train", 100_000))


@pytest.fixture(scope="module")
def test() -> list[dict]:
    return list(rows("problems", "test", 20_000))


@pytest.fixture(scope="module")
def documents() -> dict[str, list[str]]:
    return {split: [row["text"] for row in rows("documents", split, 2_000)] for split in ("train", "test")}


# ---------------------------------------------------------------- any kind


@pytest.mark.parametrize(
    ("kind", "split", "digest"),
    [
        ("documents", "train", "c5bc03590f97021e"),
        ("documents", "test", "c108f8ccb062f0e4"),
        ("conversations", "train", "195fb244d3faa974"),
        ("conversations", "test", "a5691bca6aac9cbd"),
        ("problems", "train", "b75ebb6a5a60607e"),
        ("problems", "test", "b633677ff9853757"),
    ],
)
def test_rows_are_the_same_everywhere(kind, split, digest):
    text = "\n".join(json.dumps(row, sort_keys=True) for row in rows(kind, split, 200))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_size_is_a_prefix_and_a_seed_is_another_world(kind):
    assert list(rows(kind, "train", 50)) == list(itertools.islice(rows(kind, "train", 5_000), 50))
    assert len(list(rows(kind, "train", 50))) == 50
    assert list(rows(kind, "train", 50)) != list(rows(kind, "train", 50, seed=1))
    assert list(rows(kind, "train", 50)) != list(rows(kind, "test", 50))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("poems", "train", 5), "kind='poems'.*documents, conversations, problems"),
        (("problems", "validation", 5), "split='validation'.*train, test"),
        (("problems", "train", 0), "size=0.*at least 1"),
        (("problems", "train", 2.5), r"size=2\.5.*integer"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        rows(*arguments)


# ---------------------------------------------------------------- problems


def calculate(x: int, sign: str, y: int) -> int:
    if sign == "/":
        quotient, remainder = divmod(x, y)
        assert remainder == 0
        return quotient
    return {"+": x + y, "-": x - y, "*": x * y}[sign]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_are_right_and_in_the_format_of_gsm8k(split, request):
    for row in request.getfixturevalue(split)[:5_000]:
        assert set(row) == {"question", "answer"}
        assert ANSWER.fullmatch(row["answer"]), row
        known = set(numbers(row["question"]))
        for x, sign, y, *marked, result in STEP.findall(row["answer"]):
            assert marked == [x, sign, y, result]
            assert int(result) == calculate(int(x), sign, int(y))
            assert 0 <= int(result) < 1000
            assert {int(x), int(y)} <= known, row
            known.add(int(result))
        assert row["answer"].endswith(f"\n#### {result}")
        assert row["question"].endswith("?")
        assert max(len(row["question"].split()), len(row["answer"].split())) <= 60


def test_no_test_problem_occurs_in_training(train, test):
    seen = {row["question"] for row in train}
    assert not any(row["question"] in seen for row in test)
    seen = {without_names(question) for question in seen}
    assert not any(without_names(row["question"]) in seen for row in test)
    seen = {tuple(sorted(numbers(row["question"]))) for row in train}
    assert not any(tuple(sorted(numbers(row["question"]))) in seen for row in test)


def test_documents_count_with_the_numbers_of_their_split():
    def combinations(split):
        cast = Cast(world.random.Random("documents"), world.EVERYBODY)
        told = (world.passage(cast.rng, split, cast) for _ in range(5_000))
        asked = (text.split("?")[0] for text in told if "?" in text)  # the question, before any result
        return {tuple(sorted(numbers(question))) for question in asked}

    assert len(combinations("test")) > 200
    assert not combinations("train") & combinations("test")


def test_each_split_has_its_own_names(train, test):
    for own, other, problems in (("train", "test", train[:5_000]), ("test", "train", test[:5_000])):
        mentioned = set(re.findall(r"\b[A-Z]\w*", " ".join(row["question"] for row in problems)))
        assert set(NAMES[own]) <= mentioned
        assert not set(NAMES[other]) & mentioned


@pytest.mark.slow
def test_one_test_problem_in_six_has_a_wording_of_its_own(train, test):
    seen = {skeleton(row["question"]) for row in train[:20_000]}
    new = sum(skeleton(row["question"]) not in seen for row in test[:5_000]) / 5_000
    assert 0.15 < new < 0.20


def test_every_wording_asks_with_the_same_numbers():
    templates = [*itertools.chain(*world.TEMPLATES.values(), *world.TEST_ONLY.values())]
    for template in templates:
        for question in template.questions:
            assert sorted(re.findall(r"{([a-d])}", question)) == sorted(template.ranges), question
    assert [len(world.TEMPLATES[steps]) for steps in (1, 2, 3)] >= [12, 10, 8]
    assert all(len(template.questions) >= 2 for template in templates)


@pytest.mark.parametrize("split", ["train", "test"])
def test_shares_of_steps_and_templates(split, request):
    problems = request.getfixturevalue(split)[:10_000]
    steps = Counter(len(STEP.findall(row["answer"])) for row in problems)
    assert {n: round(count / len(problems), 2) for n, count in steps.items()} == {
        1: pytest.approx(0.40, abs=0.02),
        2: pytest.approx(0.35, abs=0.02),
        3: pytest.approx(0.25, abs=0.02),
    }
    templates = Counter(skeleton(row["answer"]) for row in problems)
    assert templates.most_common(1)[0][1] < 0.08 * len(problems)
    signs = Counter(sign for row in problems for _, sign, *_ in STEP.findall(row["answer"]))
    assert min(signs.values()) > 0.15 * signs.total()


def test_problems_are_distinct(train):
    assert len({row["question"] for row in train[:10_000]}) >= 9_500


# ---------------------------------------------------------------- documents and conversations


def test_documents_are_long_enough_distinct_and_of_few_words(documents):
    for texts in documents.values():
        lengths = [len(text.split()) for text in texts]
        assert min(lengths) >= 60
        assert max(lengths) <= 250
        assert len(set(texts)) >= 0.99 * len(texts)
        assert 600 <= len(set.union(*map(words, texts))) <= 1200
        assert not any(re.search(r"[{}<>()|\[\]]|  | [.,!?]|\b[Aa] [aeiou]", text) for text in texts)


def test_a_third_of_the_documents_counts(documents):
    for texts in documents.values():
        counting = sum(bool(re.search(r"altogether|How many| has \d+ ", text)) for text in texts) / len(texts)
        assert 0.28 < counting < 0.40


def test_equations_in_documents_are_right(documents):
    for text in itertools.chain(*documents.values()):
        for x, sign, y, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", text):
            assert calculate(int(x), sign, int(y)) == int(result)


def test_documents_know_all_names_and_all_words_of_the_problems(documents, train, test):
    for texts in documents.values():
        known = set.union(*map(words, texts))
        assert {name.lower() for names in NAMES.values() for name in names} <= known
        for row in train[:3_000] + test[:3_000]:
            assert words(row["question"] + row["answer"]) <= known


@pytest.mark.parametrize("split", ["train", "test"])
def test_conversations_alternate(split):
    conversations = [row["messages"] for row in rows("conversations", split, 5_000)]
    for messages in conversations:
        assert len(messages) in (2, 4, 6)
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert all(message["content"].strip() == message["content"] != "" for message in messages)
        assert not any(re.search(r"[{}<>()|\[\]]|  ", message["content"]) for message in messages)
    assert {len(messages) for messages in conversations} == {2, 4, 6}


def test_documents_and_conversations_agree_on_the_facts(documents):
    said = [text for texts in documents.values() for text in texts]
    for row in rows("conversations", "train", 10_000):
        said += [message["content"] for message in row["messages"]]
    for fact in (
        r"capital of (\w+) is (\w+)",
        r"opposite of (\w+) is (\w+)",
        r"An? (\w+) says (\w+)",
        r"([A-Z]\w+) lives in ([A-Z]\w+)",
        r"[Aa]fter (\w+day) (?:is|comes) (\w+)",
    ):
        stated = {pair for text in said for pair in re.findall(fact, text)}
        assert len(stated) >= 4
        assert len(dict(stated)) == len(stated), sorted(stated)
