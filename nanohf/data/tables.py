"""Tables of examples, for conversations and word problems: a file or folder here, a Hub id, or the toy world.

A folder's files belong to the split that a subfolder, a shard's name (`test-00000-of-00002.parquet`) or the whole name
(`test.jsonl`) says, all others to train; a card (README.md) that lists its files, or a configuration, decides instead.

JSON lines are read one by one. `datasets` reads them in blocks of one type each: a single number where there was text
turns every other text of its block into JSON, and a column that first appears late ends the stage.
"""

import glob
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, ReadInstruction, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetGenerationError

from nanohf.data import text_files
from nanohf.data.hub_errors import first_line, hub_errors, offline
from nanohf.data.row_faults import Malformed
from nanohf.data.sources import BUILTIN, builtin_examples, is_local
from nanohf.errors import RecipeError

LINE = "a line of JSON"  # the column that holds it
LOOKED_AT = 100  # lines, for their keys
HEAD = 20  # rows


@dataclass(frozen=True)
class RowFormat:
    """How a stored row becomes {column: value}. renamed: {here: what it is to be called}, of the columns wanted."""

    columns: list[str]
    renamed: dict[str, str] = field(default_factory=dict)

    def read(self, row: dict) -> dict[str, Any]:
        """All columns; a value that is missing is None.

        Raises:
            Malformed: a line that is not a JSON object.
        """
        if row.keys() == {LINE}:
            try:
                row = json.loads(row[LINE])
            except (ValueError, RecursionError) as error:  # without its place: lines of one fault count together
                raise Malformed(f"the line is not JSON ({getattr(error, 'msg', 'nested too deeply')})") from None
            if not isinstance(row, dict):
                raise Malformed(f"the line is a JSON {type(row).__name__}, not an object")
        names = self.renamed or dict(zip(self.columns, self.columns, strict=True))
        return {name: row.get(here) for here, name in names.items()}


@dataclass(frozen=True)
class Table:
    """Rows as they are stored, and how to read one."""

    data: Dataset
    format: RowFormat

    @property
    def columns(self) -> list[str]:
        return self.format.columns

    def __len__(self) -> int:
        return len(self.data)

    def rename(self, columns: dict[str, str], name: str) -> "Table":
        """Only these columns. columns: {what a row is to have: what it is called here}.

        Raises:
            RecipeError: one of them is not there.
        """
        if missing := [here for here in columns.values() if here not in self.columns]:
            have = ", ".join(self.columns)
            raise RecipeError(f"source {name} has no {', '.join(missing)}; its columns are {have}")
        return Table(self.data, RowFormat(list(columns), {here: wanted for wanted, here in columns.items()}))


def open_table(dataset: str, split: str, config: str | None = None, rows: int | None = None) -> Table:
    """All rows of a split, or of a slice such as train[:90%], or the first `rows` of them.

    Raises:
        RecipeError: no such source, configuration, split or slice; files that cannot be read.
    """
    if dataset == BUILTIN:
        return plain_table(builtin_examples(config, split, rows))
    try:
        if is_local(dataset):
            data = _load_local(dataset, split, config)
        else:
            split_names(split)
            data = load_dataset(dataset, config, split=split)
    except RecipeError:
        raise
    except (DatasetGenerationError, ValueError) as error:  # a damaged file; a slice of no row
        cause = first_line(error.__cause__ or error)
        raise RecipeError(f"dataset={dataset!r}, split={split!r} cannot be read: {cause}") from error
    return _table(data if rows is None else data.select(range(min(rows, len(data)))))


def open_head(dataset: str, split: str, config: str | None = None, rows: int | None = None) -> Table:
    """The first HEAD rows of what `open_table` gives, without the download of a whole source on the Hub.

    Of a slice on the Hub they are the first of its split.

    Raises:
        RecipeError: as `open_table`; a Hub that does not answer.
        NotChecked
    """
    first = HEAD if rows is None else min(rows, HEAD)
    if dataset == BUILTIN:
        return open_table(dataset, split, config, rows and first)
    if is_local(dataset):
        return open_table(dataset, split, config, first)
    with hub_errors(dataset):
        check_splits(dataset, split, map(str, load_dataset_builder(dataset, config).config.data_files or {}))
        if offline():  # the cache cannot be streamed
            return open_table(dataset, split, config, first)
        stream = load_dataset(dataset, config, split=split_names(split)[0], streaming=True)
        return _table(Dataset.from_list(list(stream.take(first))))


def plain_table(data: Dataset) -> Table:
    return Table(data, RowFormat(data.column_names))


def split_names(split: str) -> list[str]:
    """`train[:90%]+test` is of train and test.

    Raises:
        RecipeError: no split, nor a slice of one.
    """
    try:
        ReadInstruction.from_spec(split)
    except ValueError as error:
        raise RecipeError(f"split={split!r} must be a split or slices of splits, such as train[:90%]") from error
    return [part.partition("[")[0].strip() for part in split.split("+")]


def check_splits(dataset: str, split: str, have: Iterable[str]) -> None:
    """
    Raises:
        RecipeError: a split that is not among them. An empty list is of a source that does not say.
    """
    have = list(have)
    if have and (missing := [name for name in split_names(split) if name not in have]):
        raise RecipeError(f"dataset={dataset!r} has no split {missing[0]!r} but {', '.join(have)}")


def _load_local(dataset: str, split: str, config: str | None) -> Dataset:
    wanted = split_names(split)
    found = local_splits(dataset, config, wanted)
    if not found:
        raise RecipeError(f"dataset={dataset!r} holds no data files. These are read: {text_files.ENDINGS}")
    check_splits(dataset, split, found)
    files = {name: [file for file in found[name] if file.stat().st_size] for name in wanted}
    if empty := [name for name, part in files.items() if not part]:
        raise RecipeError(f"dataset={dataset!r}: the files of split {empty[0]!r} are empty")
    kinds = {_kind(dataset, file) for part in files.values() for file in part}
    if len(kinds) > 1:
        raise RecipeError(
            f"dataset={dataset!r}, split={split!r}: its files are {' and '.join(sorted(kinds))}. Keep one"
        )
    paths = {name: [glob.escape(str(file)) for file in part] for name, part in files.items()}
    if (kind := kinds.pop()) != "lines":
        return load_dataset(kind, data_files=paths, split=split)
    # Bytes outside UTF-8 become an escape that JSON does not know: only their row cannot be read.
    options = {"encoding": "utf-8-sig", "encoding_errors": "backslashreplace"}
    table = load_dataset("text", data_files=paths, split=split, **options).rename_column("text", LINE)
    return table.filter(lambda line: bool(line.strip()), input_columns=LINE, load_from_cache_file=False)


def local_splits(dataset: str, config: str | None, wanted: list[str]) -> dict[str, list[Path]]:
    """The files of each split of a file or folder. wanted: those that a file's own name may mean."""
    path = Path(dataset)
    if path.is_file():
        return {"train": [path]}
    if config or text_files.card_lists_files(dataset):
        return text_files.listed(dataset, config)
    found: dict[str, list[Path]] = {}
    known = set(text_files.SPLITS) | set(wanted)
    for file in sorted(file for file in text_files.files_in(path) if text_files.kind(file)):
        names = text_files.possible_splits(file.relative_to(path), True, "")
        found.setdefault(next((name for name in names if name in known), "train"), []).append(file)
    return found


def _kind(dataset: str, file: Path) -> str:
    """What reads it: parquet, csv, text, json (one value over several lines), or lines (of JSON)."""
    kind = text_files.kind(file)
    if kind is None or kind == "text":
        raise RecipeError(f"dataset={dataset!r}: {file.name} is not a table; use .parquet, .jsonl, .json or .csv")
    named = text_files.uncompressed(file.name).lower()
    return "lines" if kind == "json" and (named.endswith(".jsonl") or _has_lines(file)) else kind


def _has_lines(file: Path) -> bool:
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        try:
            return isinstance(json.loads(next(lines, "")), dict) and next(lines, "")[:1] in ("", "{")
        except ValueError:
            return False


def _table(data: Dataset) -> Table:
    if data.column_names != [LINE]:
        return plain_table(data)
    columns: dict[str, None] = {}
    for line in data[: min(LOOKED_AT, len(data))][LINE]:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        columns |= dict.fromkeys(row if isinstance(row, dict) else ())
    return Table(data, RowFormat(list(columns)))
