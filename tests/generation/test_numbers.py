"""One grammar of numbers for calculator, reward and score: what is not read is no answer."""

import re

import pytest

from nanohf.data.gsm8k import final_answer, is_correct
from nanohf.evals.tasks.prompts import solved
from nanohf.generation.calculator import calculate
from nanohf.generation.numbers import read_number

READ = {
    "7": "7", "007": "7", "-3": "-3", "-0": "0", "0.50": "0.5", ".5": "0.5", "1,200": "1200", "1,200.": "1200",
    "1200.00": "1200", "12 apples": "12", "10%": "10", "1,234,567.80 dollars": "1234567.8", "18\n3 more": "18",
    "18\r\n3 more": "18", "60 km/h.": "60", "3 one-way tickets, I think (or so)!": "3", "5 €": "5", "12\t": "12",
    "7, of course": "7", "1,080,000.5,": "1080000.5", "4 Äpfel": "4", "9 thirsty horses": "9",
    "7<|assistant_end|>": "7",
}  # fmt: skip
NOT_READ = [
    "1/2", "1 / 2", "1e3", "1E-3", "2:30", "5 1/2", "5½", "1.200,5", "1,2,00", "1234,567", "1.2.3", "3-4", "12 - 3",
    "12 345", "2^3", "2×3", "twelve", "$5", "", ".", "-", "--2", "2**3", "2 ** 3", "3*x", "2(3)", "5!", "2π", "10²",
    "1–2", "1−2", "−5", "1⁄2", "1∕2", "5'000", "1_000", "1\u00a0000", "1 x 10^3", "1x10", "5k", "12kg", "10th", "7..",
    "0,125", "1, 200", "12,00", "5 million", "5 and a half", "3 quarters", "2 Dozens", "5 feet 3 inches", "1 out of 4",
    "5 (or 6)", "5 = 5", "5 ½", "5 + five", "5 / two", "3 - x", "7<|python_start|>3", "4 ٣", "+5", " 5",
    "50 hundredths",
]  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_numbers(text):
    assert read_number(text.removesuffix("<|assistant_end|>")) == READ[text]
    assert final_answer(f"so\n#### {text}") == READ[text]


@pytest.mark.parametrize("text", NOT_READ)
def test_what_is_something_else_is_no_answer_and_earns_nothing(text):
    assert read_number(text) is None
    first = "".join(re.findall("[0-9]", text.partition("/")[0])) or "5"
    for answer in (first, first[0], text):
        assert not is_correct(f"#### {text}", f"#### {answer}")
        assert not is_correct(f"#### {answer}", f"#### {text}")


@pytest.mark.parametrize("text", ["7", "1,200", "0.50", ".5", "1200.00", "1,234,567.80"])
def test_the_calculator_reads_the_same(text):
    assert calculate(text) == read_number(text)


@pytest.mark.parametrize("text", ["1,2,00", "1234,567", "1.200,5", "0,125", "1e3", "2:30", "5 1/2"])
def test_and_refuses_the_same(text):
    assert calculate(text) is None


@pytest.mark.parametrize("text", [*READ, *NOT_READ])
def test_a_score_and_a_reward_never_disagree(text):
    row = {"answer": "#### 12"}
    assert solved(row, [f"#### {text}"]) == {"exact_match": float(is_correct(f"#### {text}", row["answer"]))}
