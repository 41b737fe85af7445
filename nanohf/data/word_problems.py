"""Word problems with a checkable answer, for GRPO and pass@k."""

from datasets import Dataset

from nanohf.data import gsm8k
from nanohf.data.sources import examples


def problems(dataset: str, config: str | None, split: str, rows: int | None) -> Dataset:
    """Columns `prompt` (one user message) and `answer` (with its `#### number` line), in the source's order.

    dataset: builtin, a folder or a Hub id in GSM8K's format.
    """
    config = config or ("problems" if dataset == "builtin" else None)
    table = examples(dataset, split, config, rows)
    return table.map(as_problem, remove_columns=table.column_names)


def as_problem(row: dict) -> dict:
    if gsm8k.final_answer(row["answer"]) is None:
        raise ValueError(f"the answer {row['answer'][-40:]!r} has no line '#### number'")
    return {"prompt": [{"role": "user", "content": row["question"]}], "answer": row["answer"]}


def prompt_ids(tokenizer, messages: list[dict]) -> list[int]:
    """The token ids up to where the assistant begins to speak."""
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
