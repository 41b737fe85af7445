"""What the task files need of Python: our prompts (the ones SFT trains on) and the toy world as datasets."""

from datasets import DatasetDict

from nanohf.data.chat import from_arc, from_mmlu
from nanohf.data.gsm8k import final_answer
from nanohf.data.sources import examples

TOY_ROWS = 1000


def mmlu_prompt(row: dict) -> str:
    return from_mmlu(row)["messages"][0]["content"][0]["text"]


def arc_prompt(row: dict) -> str:
    return from_arc(row)["messages"][0]["content"][0]["text"]


def arc_letters(row: dict) -> list[str]:
    return list("ABCDEFGHIJ"[: len(row["choices"]["text"])])


def arc_answer(row: dict) -> int:
    return row["choices"]["label"].index(row["answerKey"])


def gsm8k_target(row: dict) -> str:
    return f"#### {final_answer(row['answer'])}"


def toy_problems(**_) -> DatasetDict:
    return DatasetDict(test=examples("builtin", "test", "problems", TOY_ROWS))


def toy_documents(**_) -> DatasetDict:
    return DatasetDict(test=examples("builtin", "test", "documents", TOY_ROWS))


def toy_choices(**_) -> DatasetDict:
    """Which sentence solves the problem? The right one, and two with another problem's number."""
    rows = examples("builtin", "test", "problems", TOY_ROWS)
    answers = [final_answer(row["answer"]) for row in rows]
    table = []
    for i, row in enumerate(rows):
        others = [a for a in dict.fromkeys(answers[i + 1 :] + answers[:i]) if a != answers[i]][:2]
        gold = i % 3
        choices = [*others[:gold], answers[i], *others[gold:]]
        table.append({"question": row["question"], "choices": [f"#### {c}" for c in choices], "gold": gold})
    from datasets import Dataset

    return DatasetDict(test=Dataset.from_list(table))
