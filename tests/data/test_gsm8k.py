"""GSM8K answers: split at their marks, read for their number, and compared with our calculator."""

import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from nanohf.data.gsm8k import answer_parts, conversation, final_answer, is_correct
from nanohf.generation.calculator import calculate

CLIPS = "She sold 48/2 = <<48/2=24>>24 clips.\nTogether <<48+24=72>>72.\n#### 72"


def rejoined(parts: list[dict]) -> str:
    marks = {"text": "{}", "python": "<<{}=", "python_output": "{}>>"}
    return "".join(marks[part["type"]].format(part["text"]) for part in parts)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 72", "72"),
        ("so\n#### 72.", "72"),
        ("#### 72.0", "72"),
        ("#### 072", "72"),
        ("#### 1,200", "1200"),
        ("#### 1,450,000.50,", "1450000.5"),
        ("#### -3", "-3"),
        ("#### -0.0", "0"),
        ("#### .5", "0.5"),
        ("#### -.50", "-0.5"),
        ("#### 10 apples", "10"),
        ("#### 5\n#### 6", "5"),  # the first, as in the source
        ("#### " + "9" * 5000, "9" * 5000),  # beyond what int() takes
        ("#### ", None),
        ("#### none", None),
        ("#### ...", None),
        ("#### -", None),
        ("#### 1.2.3", None),
        ("#### ٣", None),
        ("####72", None),
        ("### 72", None),
        ("72", None),
        ("", None),
    ],
)
def test_final_answer(text, number):
    assert final_answer(text) == number


def test_is_correct_needs_both_numbers():
    assert is_correct("I think so. #### 1,200.00", "#### 1200")
    assert not is_correct("#### 73", CLIPS)
    assert not is_correct("72", CLIPS)
    assert not is_correct("#### 72", "72")
    assert not is_correct("no", "no")


def test_answer_parts():
    assert answer_parts(CLIPS) == [
        {"type": "text", "text": "She sold 48/2 = "},
        {"type": "python", "text": "48/2"},
        {"type": "python_output", "text": "24"},
        {"type": "text", "text": "24 clips.\nTogether "},
        {"type": "python", "text": "48+24"},
        {"type": "python_output", "text": "72"},
        {"type": "text", "text": "72.\n#### 72"},
    ]


@pytest.mark.parametrize(
    ("answer", "types"),
    [
        ("", []),
        ("no mark", ["text"]),
        ("<<1+1=2>>", ["python", "python_output"]),
        ("<<1+1=2>><<2+2=4>>4", ["python", "python_output", "python", "python_output", "text"]),
        (" <<1=1=1>>\n", ["text", "python", "python_output", "text"]),
        ("<<12>> <<=3>> <<3=>> <<1+1=2> <1+1=2>>", ["text"]),  # not marks
        ("<<1<<2+3=5>>5", ["text", "python", "python_output", "text"]),
    ],
)
def test_answer_parts_join_back(answer, types):
    parts = answer_parts(answer)
    assert [part["type"] for part in parts] == types
    assert rejoined(parts) == answer


def test_conversation():
    assert conversation({"question": "How many?", "answer": "<<1+1=2>>2\n#### 2"}) == {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "How many?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "python", "text": "1+1"},
                    {"type": "python_output", "text": "2"},
                    {"type": "text", "text": "2\n#### 2"},
                ],
            },
        ]
    }


@pytest.mark.parametrize("row", [{}, {"question": "?"}, {"answer": "1"}, {"question": "?", "answer": None}])
def test_conversation_names_what_a_row_lacks(row):
    with pytest.raises(ValueError, match=r"'(question|answer)' is (missing|a \w+), not text"):
        conversation(row)


@pytest.fixture(scope="module")
def real_rows() -> list[dict]:
    root = os.environ.get("NANOHF_TEST_DATA")
    if not root:
        pytest.skip("set NANOHF_TEST_DATA to a folder with gsm8k/main/*.parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = sorted(Path(root, "gsm8k", "main").glob("*.parquet"))
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def official(text: str) -> str:
    """grade-school-math's own rule (dataset.py, extract_answer)."""
    return re.search(r"#### (\-?[0-9\.\,]+)", text)[1].strip().replace(",", "")


@pytest.mark.realdata
def test_every_real_answer(real_rows):
    assert len(real_rows) == 8_792
    for row in real_rows:
        parts = conversation(row)["messages"][1]["content"]
        types = [part["type"] for part in parts]
        assert rejoined(parts) == row["answer"]
        assert ("text", "text") not in pairwise(types)
        assert "<<" not in "".join(part["text"] for part in parts)
        assert final_answer(row["answer"]) == official(row["answer"])
        assert is_correct(row["answer"].rpartition("\n")[2], row["answer"])


@pytest.mark.realdata
def test_the_calculator_agrees_with_the_real_marks(real_rows):
    kinds, others = Counter(), []
    for row in real_rows:
        parts = answer_parts(row["answer"])
        for call, output in pairwise(parts):
            if call["type"] == "python":
                kinds[kind := agreement(call["text"], output["text"])] += 1
                if kind not in ("same text", "same number"):
                    others.append((call["text"], output["text"], calculate(call["text"])))
    share = (kinds["same text"] + kinds["same number"]) / kinds.total()
    print(f"{kinds.total():,} marks, {share:.4%} agree: {dict(kinds)}; others: {others}")
    assert kinds.total() == 27_998
    assert share >= 0.99


def agreement(expression: str, output: str) -> str:
    """'same number' is another spelling: the marks also write 16.00 and .05, the calculator 16 and 0.05."""
    result = calculate(expression)
    if result is None:
        return "refused"
    if result == output:
        return "same text"
    same = "/" not in output and is_correct(f"#### {result}", f"#### {output}")
    return "same number" if same else "different"
