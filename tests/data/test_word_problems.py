"""Word problems: what cannot be asked or checked is left out, counted by reason, and the others keep their order."""

import json

import pytest

from nanohf.data.chat_source import ChatSource
from nanohf.data.conversations import conversations
from nanohf.data.gsm8k import final_answer
from nanohf.data.question_split import place
from nanohf.data.word_problem_source import WordProblemSource
from nanohf.data.word_problems import first_problems, problems, prompt_ids
from nanohf.errors import RecipeError

pytestmark = pytest.mark.usefixtures("offline")


def write(folder, *rows, split="train") -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def sound(n: int, **changed) -> dict:
    return {"question": f"What is {n} + 3?", "answer": f"{n} + 3 = {n + 3}\n#### {n + 3}"} | changed


def all_of(dataset: str, split: str = "train", rows: int | None = None, *options):
    return problems(WordProblemSource(dataset, split=split, rows=rows), "train", None, 0.0, *options)


def test_columns_and_order(tmp_path):
    table, faults = all_of(write(tmp_path / "a", *map(sound, range(5))), "train", None)
    assert not faults
    assert table[3] == {
        "prompt": [{"role": "user", "content": "What is 3 + 3?"}],
        "answer": "3 + 3 = 6\n#### 6",
    }
    assert [final_answer(answer) for answer in table["answer"]] == ["3", "4", "5", "6", "7"]
    assert len(all_of(str(tmp_path / "a"), "train[:40%]", None)[0]) == 2
    assert len(all_of(str(tmp_path / "a"), "train", 4)[0]) == 4
    assert len(first_problems(WordProblemSource(str(tmp_path / "a"), rows=3), "train")[0]) == 3


def test_builtin_needs_no_configuration():
    table, faults = all_of("builtin", "test", 7)
    assert (len(table), len(faults)) == (7, 0)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"question": None}, "the question is missing"),
        ({"question": ""}, "the question is empty"),
        ({"question": " \n"}, "the question is empty"),
        ({"question": 7}, "the question is a int, not text"),
        ({"question": ["a"]}, "the question is a list, not text"),
        ({"question": "\ud83d?"}, "the question has half of a surrogate pair, which UTF-8 cannot hold"),
        ({"answer": None}, "the answer is missing"),
        ({"answer": 6}, "the answer is a int, not text"),
        ({"answer": ""}, "the answer is empty"),
        ({"answer": "6"}, "the answer has no line '#### number', a plain number with at most a unit"),
        ({"answer": "#### 1/2"}, "the answer has no line '#### number', a plain number with at most a unit"),
        ({"answer": "#### 1e3"}, "the answer has no line '#### number', a plain number with at most a unit"),
    ],
)
def test_a_row_that_is_left_out(tmp_path, changed, reason):
    rows = [*map(sound, range(4)), sound(4, **changed), sound(5), sound(6, **changed)]
    table, faults = all_of(write(tmp_path / "a", *rows), "train", None)
    assert [final_answer(answer) for answer in table["answer"]] == ["3", "4", "5", "6", "8"]
    assert (faults.counts, faults.first) == ({reason: 2}, {reason: 4})


def test_a_question_may_be_just_so_long(tmp_path, tokenizer):
    folder = write(tmp_path / "a", *map(sound, range(5)), sound(5, question="What is it? " * 9))
    (length,) = {len(prompt_ids(tokenizer, row["prompt"])) for row in all_of(folder, "train", 5)[0]}
    table, faults = all_of(folder, "train", None, tokenizer, length)
    assert len(table) == 5
    assert faults.first == {f"the question is too long, over {length:,} tokens": 5}
    with pytest.raises(RecipeError, match="6 of 6 rows are malformed"):
        all_of(folder, "train", None, tokenizer, length - 1)
    assert len(all_of(folder, "train", None, tokenizer, None)[0]) == 6


def test_half_may_be_left_out_and_no_more(tmp_path):
    table, faults = all_of(write(tmp_path / "a", sound(0), sound(1, question="")), "train", None)
    assert (len(table), len(faults)) == (1, 1)
    rows = sound(0), sound(1, question=""), sound(2, question=None)
    with pytest.raises(
        RecipeError, match=r"a train: 2 of 3 rows are malformed, and at most half of a source may be: 1 x"
    ):
        all_of(write(tmp_path / "a", *rows), "train", None)


def test_other_columns_and_splits(tmp_path):
    folder = write(tmp_path / "a", {"problem": "a", "answer": "#### 1"})
    with pytest.raises(RecipeError, match="has no column question; the columns are problem, answer"):
        all_of(folder, "train", None)
    with pytest.raises(RecipeError, match="has no split 'test' but train"):
        first_problems(WordProblemSource(folder), "test", 20)


def test_there_are_none(tmp_path):
    with pytest.raises(RecipeError, match=r"split='train\[:0\]' cannot be read: .* no data"):
        all_of(write(tmp_path / "a", sound(0)), "train[:0]", None)
    (tmp_path / "a/train.jsonl").write_text("\n\n")
    with pytest.raises(RecipeError, match="a train has no row"):
        all_of(str(tmp_path / "a"), "train", None)


NAMES = ("Ann", "Ben", "Cem", "Dora", "Emil", "Finn", "Gül", "Hugo", "Ida", "Jon")
THINGS = ("plums", "pens", "caps", "nuts", "keys", "cups", "bells", "figs", "kites", "eggs")


def school(number: int, **columns) -> list[dict]:
    """A hundred questions that differ in more than numbers."""
    return [
        {"question": f"{name} has {number} {things}. How many?", "answer": f"#### {number}"} | columns
        for name in NAMES
        for things in THINGS
    ]


def questions(*arguments, **options) -> list[str]:
    return [row["prompt"][0]["content"] for row in problems(*arguments, **options)[0]]


def without_numbers(texts: list[str]) -> set[str]:
    return {"".join(c for c in text if not c.isdigit()) for text in texts}


def test_parts_share_no_question_not_even_with_other_numbers(tmp_path):
    """By the rule's own words: sides by hash, about as many as the shares say, copies together, all rows somewhere."""
    rows = school(3) + school(4)
    folder = write(tmp_path / "a", *rows)
    write(tmp_path / "a", *school(12), split="test")
    source = WordProblemSource(folder, split="train+test", held_out=0.2)
    parts = {part: questions(source, part, validation=0.1) for part in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == 300
    masked = {part: without_numbers(texts) for part, texts in parts.items()}
    assert sum(map(len, masked.values())) == 100, "a question is on two sides"
    assert 10 <= len(masked["test"]) <= 30
    assert 3 <= len(masked["validation"]) <= 20
    assert all(place(text) < 0.2 for text in parts["test"])
    assert questions(source, "test", 7) == parts["test"][:7]


def test_a_split_for_tests_is_left_whole(tmp_path):
    folder = write(tmp_path / "a", *school(3))
    write(tmp_path / "a", *school(5), split="test")
    source = WordProblemSource(folder)
    assert len(questions(source, "test", validation=0.1)) == 100
    train, validation = (without_numbers(questions(source, p, validation=0.1)) for p in ("train", "validation"))
    assert (len(train | validation), train & validation) == (100, set())


def test_where_takes_some_rows_only(tmp_path):
    rows = school(3, source="addsub") + school(4, source="mathqa") + school(5, source="mawps")
    folder = write(tmp_path / "a", *rows)
    found = questions(WordProblemSource(folder, where={"source": ["addsub", "mawps"]}), "train")
    assert found == [row["question"] for row in rows if row["source"] != "mathqa"]
    with pytest.raises(RecipeError, match=r"where=.*no word problem is left for train"):
        problems(WordProblemSource(folder, where={"source": ["svamp"]}), "train")
    with pytest.raises(RecipeError, match="has no column kind; the columns are question, answer, source"):
        problems(WordProblemSource(folder, where={"kind": ["a"]}), "train")


def test_columns_of_other_names(tmp_path):
    folder = write(tmp_path / "a", {"problem": "1 + 1?", "answer": "#### 2"})
    assert questions(WordProblemSource(folder, columns={"question": "problem"}), "train") == ["1 + 1?"]


def test_no_validation(tmp_path):
    """One question in many numbers is one question."""
    rows = [{"question": f"Add {n} and {n}.", "answer": f"#### {2 * n}"} for n in range(50)]
    assert place("Add 3 and 3.") > 0.05
    with pytest.raises(RecipeError, match=r"validation=0\.05 of its questions is not one, for numbers aside"):
        problems(WordProblemSource(write(tmp_path / "a", *rows)), "validation", validation=0.05)


def test_a_mixture_keeps_the_same_questions_apart(tmp_path):
    folder = write(tmp_path / "a", *school(3), *school(4))
    scored = questions(WordProblemSource(folder, held_out=0.2), "test")
    source = ChatSource(folder, "gsm8k", held_out=0.2)
    trained, measured = (
        [row["messages"][0]["content"][0]["text"] for row in conversations(source, measured)[0]]
        for measured in (False, True)
    )
    assert measured == scored
    assert sorted(trained + measured) == sorted(row["question"] for row in school(3) + school(4))
