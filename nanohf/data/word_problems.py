"""Word problems with a checkable answer, for GRPO and pass@k."""

from typing import Any

from datasets import Dataset, Features, List, Value

from nanohf.data.gsm8k import final_answer
from nanohf.data.row_faults import Faults, Malformed
from nanohf.data.tables import Table, open_head, open_table
from nanohf.errors import RecipeError

COLUMNS = ("question", "answer")
FEATURES = Features({"prompt": List({"role": Value("string"), "content": Value("string")}), "answer": Value("string")})


def problems(
    dataset: str, config: str | None, split: str, rows: int | None, tokenizer: Any = None, longest: int | None = None
) -> tuple[Dataset, Faults]:
    """Columns `prompt` (one user message) and `answer` (with its `#### number` line), in the source's order.

    dataset: builtin, a file, a folder or a Hub id in GSM8K's format. longest: tokens that a prompt may have, by the
    tokenizer. Returns the word problems that can be asked, and what is wrong with the others.

    Raises:
        RecipeError: columns that are missing; more rows left out than stay.
    """
    table = open_table(dataset, split, _config(dataset, config), rows)
    return _problems(table, f"word problems {dataset} {split}", tokenizer, longest)


def first_problems(dataset: str, config: str | None, split: str, rows: int | None) -> tuple[Dataset, Faults]:
    """The same of the first rows, without a download of the whole source.

    Raises:
        RecipeError: also a Hub that does not answer.
        NotChecked: offline, and not in the cache.
    """
    return _problems(open_head(dataset, split, _config(dataset, config), rows), f"word problems {dataset} {split}")


def _config(dataset: str, config: str | None) -> str | None:
    return config or ("problems" if dataset == "builtin" else None)


def _problems(table: Table, name: str, tokenizer: Any = None, longest: int | None = None) -> tuple[Dataset, Faults]:
    if not len(table):
        raise RecipeError(f"{name} has no row")
    if missing := [column for column in COLUMNS if column not in table.columns]:
        have = ", ".join(table.columns)
        raise RecipeError(f"{name} has no column {' and '.join(missing)}; the columns are {have}")
    kept, faults = [], Faults()
    for number, row in enumerate(table.data):
        try:
            kept.append(_problem(table.format.read(row), tokenizer, longest))
        except Malformed as error:
            faults.add(number, str(error))
    faults.refuse_most(name, len(table))
    return Dataset.from_list(kept, features=FEATURES), faults


def _problem(row: dict, tokenizer: Any, longest: int | None) -> dict:
    for name in COLUMNS:
        value = row[name]
        if not isinstance(value, str):
            raise Malformed(f"the {name} is {'missing' if value is None else f'a {type(value).__name__}, not text'}")
        if not value.strip():
            raise Malformed(f"the {name} is empty")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise Malformed(f"the {name} has half of a surrogate pair, which UTF-8 cannot hold")
    if final_answer(row["answer"]) is None:
        raise Malformed("the answer has no line '#### number', a plain number with at most a unit")
    prompt = [{"role": "user", "content": row["question"]}]
    if longest and len(prompt_ids(tokenizer, prompt)) > longest:
        raise Malformed(f"the question is too long, over {longest:,} tokens")
    return {"prompt": prompt, "answer": row["answer"]}


def prompt_ids(tokenizer: Any, messages: list[dict]) -> list[int]:
    """The token ids up to where the assistant begins to speak."""
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
