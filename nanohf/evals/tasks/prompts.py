"""What the task files need of Python: our prompts (the ones SFT trains on) and the toy world as datasets."""

from datasets import Dataset, DatasetDict

from nanohf.data.conversations import from_arc, from_mmlu
from nanohf.data.gsm8k import final_answer, is_correct
from nanohf.data.sources import builtin_examples

TOY_ROWS = 1000


def mmlu_prompt(row: dict) -> str:
    return from_mmlu(row)["messages"][0]["content"][0]["text"]


def arc_prompt(row: dict) -> str:
    return from_arc(row)["messages"][0]["content"][0]["text"]


def arc_letters(row: dict) -> list[str]:
    return list("ABCDEFGHIJ"[: len(row["choices"]["text"])])


def arc_answer(row: dict) -> int:
    return row["choices"]["label"].index(row["answerKey"])


def solved(row: dict, completions: list[str]) -> dict[str, float]:
    """The reward's own rule, so that a score and a reward never disagree."""
    return {"exact_match": float(is_correct(completions[0], row["answer"]))}


def gsm8k_target(row: dict) -> str:
    return f"#### {final_answer(row['answer'])}"


def toy_problems(**_) -> DatasetDict:
    return DatasetDict(test=builtin_examples("problems", "test", TOY_ROWS))


def toy_choices(**_) -> DatasetDict:
    """Which operation comes first? The right first step of the answer, and the same with two other operators."""
    table = []
    for i, row in enumerate(builtin_examples("problems", "test", TOY_ROWS)):
        line, _, rest = row["answer"].partition("<<")  # "Otto has 53 - 10 = " and "53-10=43>>43 more ..."
        expression = rest.partition("=")[0]
        right = next(op for op in "+-*/" if op in expression)
        others = [op for op in "+-*/" if op != right]
        operators = [*others[: i % 3], right, *others[i % 3 : 2]]
        steps = [
            f"{line.replace(f' {right} ', f' {op} ')}<|python_start|>{expression.replace(right, op)}<|python_end|>"
            for op in operators
        ]
        table.append({"question": row["question"], "choices": steps, "gold": i % 3})
    return DatasetDict(test=Dataset.from_list(table))
