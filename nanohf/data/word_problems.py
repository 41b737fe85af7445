"""Word problems with a checkable answer, for GRPO and pass@k."""

from collections.abc import Iterator
from typing import Any

from datasets import Dataset, Features, List, Value

from nanohf.data.gsm8k import final_answer
from nanohf.data.question_split import place
from nanohf.data.row_faults import Faults, Malformed
from nanohf.data.sources import BUILTIN
from nanohf.data.tables import Table, open_head, open_table
from nanohf.data.word_problem_source import WordProblemSource
from nanohf.errors import RecipeError

COLUMNS = ("question", "answer")
FEATURES = Features({"prompt": List({"role": Value("string"), "content": Value("string")}), "answer": Value("string")})


def problems(
    source: WordProblemSource,
    part: str,
    count: int | None = None,
    validation: float = 0.0,
    tokenizer: Any = None,
    longest: int | None = None,
) -> tuple[Dataset, Faults]:
    """Columns `prompt` (one user message) and `answer` (with its `#### number` line), in the source's order.

    Args:
        part: "train", "validation" or "test", which share no question; count: at most so many.
        validation: the share of the source's training questions that is for validation.
        longest: tokens that a prompt may have, by the tokenizer.

    Returns the word problems that can be asked, and what is wrong with the others.

    Raises:
        RecipeError: columns that are missing; no word problem in this part; more rows left out than stay.
    """
    split = _split(source, part)
    rows = source.rows if split == source.split else count if source.dataset == BUILTIN else None
    table = open_table(source.dataset, split, _config(source), rows)
    name = f"word problems {source.dataset} {split}"
    kept: list[dict] = []
    faults, read = Faults(), 0
    least, below = _places(source, part, validation)
    for number, row in enumerate(_readable(_checked(table, source, name), faults)):
        if len(kept) == count:
            break
        read = number + 1
        if row is None or not _taken(source, row):
            continue
        try:
            if isinstance(row["question"], str) and not least <= place(row["question"]) < below:
                continue
            kept.append(_problem(row, tokenizer, longest))
        except Malformed as error:
            faults.add(number, str(error))
    faults.refuse_most(name, read)
    if not kept:
        raise RecipeError(_none_left(source, name, part, validation))
    return Dataset.from_list(kept, features=FEATURES), faults


def first_problems(source: WordProblemSource, part: str, count: int | None = None) -> tuple[Dataset, Faults]:
    """The first rows of the split that this part is of, without a download of the whole source.

    Raises:
        RecipeError: also a Hub that does not answer.
        NotChecked: offline, and not in the cache.
    """
    split = _split(source, part)
    name = f"word problems {source.dataset} {split}"
    rows = source.rows if split == source.split else count
    table = _checked(open_head(source.dataset, split, _config(source), rows), source, name)
    kept: list[dict] = []
    faults = Faults()
    for number, row in enumerate(_readable(table, faults)):
        try:
            kept += [_problem(row, None, None)] if row else []
        except Malformed as error:
            faults.add(number, str(error))
    faults.refuse_most(name, len(table))
    return Dataset.from_list(kept, features=FEATURES), faults


def _config(source: WordProblemSource) -> str | None:
    return source.config or ("problems" if source.dataset == BUILTIN else None)


def _split(source: WordProblemSource, part: str) -> str:
    return source.test_split if part == "test" and source.held_out is None else source.split


def _places(source: WordProblemSource, part: str, validation: float) -> tuple[float, float]:
    """Where the part's questions lie, by `question_split.place`: what evaluate scores comes first."""
    held_out = source.held_out or 0.0
    if part == "test":
        return 0.0, source.held_out or 1.0
    return (held_out, held_out + validation) if part == "validation" else (held_out + validation, 1.0)


def _checked(table: Table, source: WordProblemSource, name: str) -> Table:
    """The table with the columns question and answer, and those that `where` asks for."""
    if not len(table):
        raise RecipeError(f"{name} has no row")
    wanted = dict(zip(COLUMNS, COLUMNS, strict=True)) | (source.columns or {})
    wanted |= {column: column for column in source.where or {}}
    if missing := [column for column in wanted.values() if column not in table.columns]:
        have = ", ".join(table.columns)
        raise RecipeError(f"{name} has no column {' and '.join(missing)}; the columns are {have}")
    return table.rename(wanted, name)


def _readable(table: Table, faults: Faults) -> Iterator[dict | None]:
    """Every row by the names of its columns; None for one that cannot be read, which is counted."""
    for number, row in enumerate(table.data):
        try:
            yield table.format.read(row)
        except Malformed as error:
            faults.add(number, str(error))
            yield None


def _taken(source: WordProblemSource, row: dict) -> bool:
    return all(row[column] in values for column, values in (source.where or {}).items())


def _none_left(source: WordProblemSource, name: str, part: str, validation: float) -> str:
    if part == "validation":
        return (
            f"{name}: validation={validation:g} of its questions is not one, for numbers aside it has too few "
            "different questions. Raise validation, or give more word problems"
        )
    where = f" of where={source.where}" if source.where else ""
    share = f", held_out={source.held_out:g}" if source.held_out else ""
    return f"{name}{where}{share}: no word problem is left for {part}"


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
