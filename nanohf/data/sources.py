"""Where text and examples come from: `builtin` (the toy world), a folder, or a Hub id, all as `datasets` objects."""

import logging
from pathlib import Path

from datasets import Dataset, IterableDataset, load_dataset, load_dataset_builder
from datasets.data_files import EmptyDatasetError

from nanohf.data import spelling
from nanohf.data import toy_world as world

BUILTIN = "builtin"
BUILTIN_DOCUMENTS = 10**9  # generated as they are read, so as good as endless
skipped_files: set[str] = set()  # damaged ones; datasets says so in its log only
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".txt": "text", ".csv": "csv"}


def text_stream(dataset: str, split: str, config: str | None = None, column: str = "text") -> IterableDataset:
    """The documents of a text source as a stream of {"text": str}, with exact `state_dict`.

    dataset: "builtin", a folder (.parquet, .jsonl, .json, .csv, .txt) or a Hub id. split: "train" or "validation". A
    source without a validation split lends its last data file (as nanochat does), or every 100th document if it has
    only one. A .txt file is one document; an only one is read by its paragraphs. Parquet files that cannot be opened
    are skipped with a warning and noted in `skipped_files`.

    Raises:
        ValueError: no such folder, no data files in it, no such column, or no document for this split.
    """
    if dataset == BUILTIN:
        rows = {"kind": "documents", "split": "train" if split == "train" else "test", "size": BUILTIN_DOCUMENTS}
        return IterableDataset.from_generator(world.rows, gen_kwargs=rows)

    files = _data_files(dataset, config)
    if "train" in files:
        train, validation = files["train"], list(files.get("validation") or files.get("test") or [])
    else:  # a file called test.txt and nothing beside it
        train, validation = [file for part in files.values() for file in part], []
    if not validation and len(train) > 1:
        *train, last = sorted(train)
        validation = [last]
    chosen = validation if split == "validation" and validation else train
    name = chosen[0].removesuffix(".gz").removesuffix(".zst")
    if (kind := FORMATS.get(Path(name).suffix)) is None:
        raise ValueError(f"dataset={dataset!r}: {Path(name).name} is none of {', '.join(FORMATS)}")
    options = {"parquet": {"on_bad_files": "warn"}, "text": {"sample_by": "document" if validation else "paragraph"}}
    try:
        stream = load_dataset(kind, data_files=chosen, split="train", streaming=True, **options.get(kind, {}))
        first = next(iter(stream))
    except StopIteration:
        raise ValueError(f"dataset={dataset!r}: {Path(name).name} holds no documents") from None
    if column not in first:
        raise ValueError(f"dataset={dataset!r} has no column {column!r} but {', '.join(first)}. Set text_column.")
    if not validation:  # one file: every 100th document is for validation
        stream = stream.filter(lambda _, i: (i % 100 == 99) == (split == "validation"), with_indices=True)
        if next(iter(stream), None) is None:
            raise ValueError(
                f"dataset={dataset!r} is one file of fewer than 100 documents, so none is left for validation. "
                "Use more text, or a second file, which then is the validation text."
            )
    stream = stream.select_columns(column)
    return stream.rename_column(column, "text") if column != "text" else stream


def examples(dataset: str, split: str, config: str | None = None, rows: int | None = None, seed: int = 0) -> Dataset:
    """A table of examples: load_dataset(dataset, config, split=split), its first `rows` rows if given.

    For `builtin`, config is "conversations", "problems", "spelling" or "letter_counting" and rows is needed (there is
    no end to them).
    """
    check_examples(dataset, config, rows)
    if dataset == BUILTIN:
        make = spelling.rows if config in spelling.KINDS else world.rows
        return Dataset.from_list(list(make(config, split, rows, seed)))
    table = load_dataset(dataset, config, split=split)
    return table if rows is None else table.select(range(min(rows, len(table))))


def check_text(dataset: str, config: str | None = None, column: str = "text") -> None:
    """Fails early on a text source on this machine that cannot work; a Hub id is left for the stage to open.

    Raises:
        ValueError: a folder that does not exist or holds no data, no text, or too little to spare some for validation.
    """
    if dataset == BUILTIN or not _is_folder(dataset):
        return
    text_stream(dataset, "validation", config, column)
    texts = (row["text"] for row in text_stream(dataset, "train", config, column).take(100))
    if not any(text and text.strip() for text in texts):
        raise ValueError(f"dataset={dataset!r} has no text in column {column!r} of its first 100 documents")


def check_examples(dataset: str, config: str | None = None, rows: int | None = None) -> None:
    """The same for a table of examples.

    Raises:
        ValueError: a folder that does not exist or holds no data; a kind that builtin has not, or no number of rows.
    """
    if dataset == BUILTIN:
        kinds = (*world.KINDS, *spelling.KINDS)
        if config not in kinds:
            raise ValueError(f"dataset=builtin, config={config!r}: the kinds are {', '.join(kinds)}")
        if rows is None or rows < 1:
            raise ValueError(f"dataset=builtin, config={config}, rows={rows}: it has no end; set rows")
    elif not dataset.endswith((".yaml", ".yml")) and _is_folder(dataset):
        _data_files(dataset, config)


def _is_folder(dataset: str) -> bool:
    """Whether the source is a folder here. If not, it must at least look like a Hub id."""
    if dataset.strip("/ ") and Path(dataset).is_dir():
        return True
    if not dataset.strip("/ ") or dataset.startswith((".", "/", "~")) or dataset.count("/") > 1:
        raise ValueError(
            f"dataset={dataset!r} is no folder and no Hub id (user/name). builtin is the toy world; "
            "write a home folder in full, not as ~."
        )
    return False


def _data_files(dataset: str, config: str | None) -> dict[str, list[str]]:
    _is_folder(dataset)
    try:
        builder = load_dataset_builder(dataset, config)
    except EmptyDatasetError as error:
        raise ValueError(f"dataset={dataset!r} holds no data files ({', '.join(FORMATS)})") from error
    return builder.config.data_files


def _note_skipped(record: logging.LogRecord) -> bool:
    if (message := record.getMessage()).startswith("Skipping bad file"):
        skipped_files.add(message.split("'")[1])
    return True


logging.getLogger("datasets.packaged_modules.parquet.parquet").addFilter(_note_skipped)
