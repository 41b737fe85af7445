"""Word problems with a checkable answer, for GRPO and pass@k."""

from typing import Any

from datasets import Dataset

from nanohf.data.gsm8k import final_answer
from nanohf.data.row_faults import Faults
from nanohf.data.sources import examples

COLUMNS = ("question", "answer")


def problems(
    dataset: str, config: str | None, split: str, rows: int | None, tokenizer: Any = None, longest: int | None = None
) -> tuple[Dataset, Faults]:
    """Columns `prompt` (one user message) and `answer` (with its `#### number` line), in the source's order.

    dataset: builtin, a folder or a Hub id in GSM8K's format. longest: tokens that a prompt may have, by the tokenizer.
    Returns the word problems that can be asked, and what is wrong with the others.

    Raises:
        ValueError: columns that are missing; more rows left out than stay.
    """
    config = config or ("problems" if dataset == "builtin" else None)
    table = examples(dataset, split, config, rows)
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        have = ", ".join(table.column_names)
        raise ValueError(f"word problems {dataset} have no column {' and '.join(missing)}; the columns are {have}")
    kept, faults = [], Faults()
    for number, row in enumerate(table.select_columns(list(COLUMNS))):
        if fault := fault_of(row["question"], row["answer"]):
            faults.add(number, fault)
            continue
        prompt = [{"role": "user", "content": row["question"]}]
        if longest and len(prompt_ids(tokenizer, prompt)) > longest:
            faults.add(number, f"the question leaves no room for an answer: over {longest:,} tokens")
            continue
        kept.append({"prompt": prompt, "answer": row["answer"]})
    faults.refuse_most(f"word problems {dataset} {split}", len(table))
    return Dataset.from_list(kept), faults


def fault_of(question: Any, answer: Any) -> str:
    """Why a row is not a word problem; empty if it is one."""
    for name, value in (("question", question), ("answer", answer)):
        if not isinstance(value, str):
            return f"the {name} is {'missing' if value is None else f'a {type(value).__name__}, not text'}"
        if not value.strip():
            return f"the {name} is empty"
    if final_answer(answer) is None:
        return "the answer has no line '#### number' with a number in it"
    return ""


def prompt_ids(tokenizer: Any, messages: list[dict]) -> list[int]:
    """The token ids up to where the assistant begins to speak."""
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
