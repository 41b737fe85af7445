"""Word problems: what cannot be asked or checked is left out, counted by reason, and the others keep their order."""

import json

import pytest

from nanohf.data.gsm8k import final_answer
from nanohf.data.word_problems import first_problems, problems, prompt_ids
from nanohf.errors import RecipeError

pytestmark = pytest.mark.usefixtures("offline")


def write(folder, *rows, split="train") -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def sound(n: int, **changed) -> dict:
    return {"question": f"What is {n} + 3?", "answer": f"{n} + 3 = {n + 3}\n#### {n + 3}"} | changed


def test_columns_and_order(tmp_path):
    table, faults = problems(write(tmp_path / "a", *map(sound, range(5))), None, "train", None)
    assert not faults
    assert table[3] == {
        "prompt": [{"role": "user", "content": "What is 3 + 3?"}],
        "answer": "3 + 3 = 6\n#### 6",
    }
    assert [final_answer(answer) for answer in table["answer"]] == ["3", "4", "5", "6", "7"]
    assert len(problems(str(tmp_path / "a"), None, "train[:40%]", None)[0]) == 2
    assert len(problems(str(tmp_path / "a"), None, "train", 4)[0]) == 4
    assert len(first_problems(str(tmp_path / "a"), None, "train", 3)[0]) == 3


def test_builtin_needs_no_configuration():
    table, faults = problems("builtin", None, "test", 7)
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
    table, faults = problems(write(tmp_path / "a", *rows), None, "train", None)
    assert [final_answer(answer) for answer in table["answer"]] == ["3", "4", "5", "6", "8"]
    assert (faults.counts, faults.first) == ({reason: 2}, {reason: 4})


def test_a_question_may_be_just_so_long(tmp_path, tokenizer):
    folder = write(tmp_path / "a", *map(sound, range(5)), sound(5, question="What is it? " * 9))
    (length,) = {len(prompt_ids(tokenizer, row["prompt"])) for row in problems(folder, None, "train", 5)[0]}
    table, faults = problems(folder, None, "train", None, tokenizer, length)
    assert len(table) == 5
    assert faults.first == {f"the question is too long, over {length:,} tokens": 5}
    with pytest.raises(RecipeError, match="6 of 6 rows are malformed"):
        problems(folder, None, "train", None, tokenizer, length - 1)
    assert len(problems(folder, None, "train", None, tokenizer, None)[0]) == 6


def test_half_may_be_left_out_and_no_more(tmp_path):
    table, faults = problems(write(tmp_path / "a", sound(0), sound(1, question="")), None, "train", None)
    assert (len(table), len(faults)) == (1, 1)
    rows = sound(0), sound(1, question=""), sound(2, question=None)
    with pytest.raises(
        RecipeError, match=r"a train: 2 of 3 rows are malformed, and at most half of a source may be: 1 x"
    ):
        problems(write(tmp_path / "a", *rows), None, "train", None)


def test_other_columns_and_splits(tmp_path):
    folder = write(tmp_path / "a", {"problem": "a", "answer": "#### 1"})
    with pytest.raises(RecipeError, match="has no column question; the columns are problem, answer"):
        problems(folder, None, "train", None)
    with pytest.raises(RecipeError, match="has no split 'test' but train"):
        first_problems(folder, None, "test", 20)


def test_there_are_none(tmp_path):
    with pytest.raises(RecipeError, match=r"split='train\[:0\]' cannot be read: .* no data"):
        problems(write(tmp_path / "a", sound(0)), None, "train[:0]", None)
    (tmp_path / "a/train.jsonl").write_text("\n\n")
    with pytest.raises(RecipeError, match="a train has no row"):
        problems(str(tmp_path / "a"), None, "train", None)
