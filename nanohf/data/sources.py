"""Where text and examples come from: `builtin` (the toy world), files on this machine, or a Hub id."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from datasets import Dataset, IterableDataset, load_dataset, load_dataset_builder
from datasets.data_files import EmptyDatasetError

from nanohf import console
from nanohf.data import school_world, small_talk, spelling, text_files
from nanohf.data import text_readers as readers
from nanohf.data import toy_world as world
from nanohf.data.hub_errors import hub_errors, offline
from nanohf.data.pieces import PIECE
from nanohf.data.skipped import skip_file, skipped_files
from nanohf.data.text_stream import HubText, LocalText, TextStream
from nanohf.errors import RecipeError

__all__ = ["BUILTIN", "builtin_examples", "check_text", "is_local", "skipped_files", "text_stream"]

BUILTIN = "builtin"
BUILTIN_DOCUMENTS = 10**9  # generated as they are read, so as good as endless
CHECKED = 256_000_000  # bytes of a source that are looked at before any work, at most
HEAD = 8_000_000  # of one file
MOST_BAD = 0.1  # of the rows looked at; more is not an accident


def text_stream(
    dataset: str,
    part: str,
    config: str | None = None,
    column: str = "text",
    split: str = "train",
    seed: int = 0,
) -> TextStream | IterableDataset:
    """The documents of a text source, {"text": str}, with exact `state_dict`, shuffled by seed and epoch.

    Args:
        dataset: "builtin", a file, a folder (.parquet, .jsonl, .json, .csv, .txt; see `text_files.find`) or a Hub id.
        part: "train" or "validation" (any other name counts as validation). A source without a split for validation
            has a hundredth of its documents held out, chosen by a hash of their text; several files on the Hub lend
            the last instead, as nanochat does.
        split: the one to train on, where a source calls it something else than train.

    Files here come with "begins": a document longer than `PIECE` characters comes in pieces, each a row, of which only
    the first begins it. Files and rows that cannot be read are skipped with a warning and noted in `skipped_files`.

    Raises:
        RecipeError: no such source, split or column, no text, or too little of it for both parts.
    """
    part, seed = ("train", seed) if part == "train" else ("validation", 0)  # the same rows are measured for any seed
    if dataset == BUILTIN:
        rows = {"kind": "documents", "split": "train" if part == "train" else "test", "size": BUILTIN_DOCUMENTS}
        return IterableDataset.from_generator(world.rows, gen_kwargs=rows)
    try:
        if is_local(dataset):
            files = text_files.find(dataset, config, split)
            own = files.validation if part == "validation" else files.train
            with _readable(dataset):
                return TextStream(LocalText(own or files.train, column), seed, None if files.validation else part)
        train, validation, load, size = _on_the_hub(dataset, config, column, split)
        source = HubText(validation if part == "validation" and validation else train, column, load, size)
        return TextStream(source, seed, None if validation else part)
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"dataset={dataset!r} {error}") from error


def _on_the_hub(dataset: str, config: str | None, column: str, split: str) -> tuple:
    """The files to train on, those for validation (if there are), what opens some of them, and their bytes of text."""
    try:
        builder = load_dataset_builder(dataset, config)
    except EmptyDatasetError as error:
        raise RecipeError(f"dataset={dataset!r} holds no data files ({text_files.ENDINGS})") from error
    files = {str(name): [str(file) for file in found] for name, found in (builder.config.data_files or {}).items()}
    if split not in files:
        raise RecipeError(f"dataset={dataset!r} has no split {split!r} but {', '.join(files)}. Set split.")
    train = sorted(files[split])
    validation = next((files[name] for name in ("validation", "test") if name != split and name in files), [])
    if not validation and len(train) > 1:
        *train, last = train
        validation = [last]
    if (kind := text_files.kind(Path(train[0]))) is None:
        raise RecipeError(f"dataset={dataset!r}: {Path(train[0]).name} has none of the endings {text_files.ENDINGS}")
    load = partial(streamed, kind)
    first = next(iter(load(train)), None)
    if first is None:
        raise RecipeError(f"dataset={dataset!r}: {Path(train[0]).name} holds no documents")
    if column not in first:
        raise RecipeError(f"dataset={dataset!r} has no column {column!r} but {', '.join(first)}. Set text_column.")
    if not isinstance(first[column], str | None):
        raise RecipeError(_wrong_kind(dataset, f"column {column!r} holds {type(first[column]).__name__}, not text"))
    splits = builder.info.splits or {}
    return train, validation, load, splits[split].num_bytes if split in splits else None


def streamed(kind: str, files: list[str]) -> IterableDataset:
    options = {"parquet": {"on_bad_files": "warn"}, "text": {"sample_by": "document"}}.get(kind, {})
    return load_dataset(kind, data_files=files, split="train", streaming=True, **options)


def builtin_examples(kind: str | None, split: str, rows: int | None, seed: int = 0) -> Dataset:
    """The first rows of a table that the package makes, for there is no end to them.

    kind: of the toy world "conversations", "problems" or "documents"; or "school_problems", "small_talk", "spelling",
    "letter_counting".

    Raises:
        RecipeError: another kind or split, or no number of rows.
    """
    makers = {kind: made for made in (world, school_world, small_talk, spelling) for kind in made.KINDS}
    if kind not in makers:
        raise RecipeError(f"dataset=builtin, config={kind!r}: the kinds are {', '.join(makers)}")
    if rows is None or rows < 1:
        raise RecipeError(f"dataset=builtin, config={kind}, rows={rows}: it has no end; set rows")
    if split not in world.SPLITS:
        raise RecipeError(
            f"dataset=builtin, split={split!r}: it has {', '.join(world.SPLITS)}, without slices; set rows"
        )
    return Dataset.from_list(list(makers[kind].rows(kind, split, rows, seed)))


def check_text(dataset: str, config: str | None = None, column: str = "text", split: str = "train") -> None:
    """Fails early on a text source that cannot work. Of one on the Hub the first document is read.

    Raises:
        RecipeError: no such source, no text in it, another encoding or kind of value, or many bad rows; a Hub that
            does not answer.
        NotChecked: offline, and not in the cache.
    """
    if dataset == BUILTIN:
        return
    if not is_local(dataset):
        with hub_errors(dataset):
            if offline():
                load_dataset_builder(dataset, config)
            else:
                _on_the_hub(dataset, config, column, split)
        return
    files, budget = text_files.find(dataset, config, split), CHECKED
    if files.left_out:
        console.progress(f"dataset={dataset!r}: not read: {text_files.some(files.left_out)}")
    for file in files.train + files.validation:
        if budget > 0:
            with _readable(dataset):
                _check_file(dataset, file, column)
                budget -= min(HEAD, file.stat().st_size)
    for part in ("train", "validation"):
        stream = text_stream(dataset, part, config, column, split)
        if not any(row["text"].strip() for row in stream.take(100)):
            raise RecipeError(f"dataset={dataset!r} has no text in column {column!r} of its first 100 documents")


@contextmanager
def _readable(dataset: str) -> Iterator[None]:
    """A file that may not be read, or a link to nothing, is the user's to put right."""
    try:
        yield
    except OSError as error:
        fault = f"{error.filename}: {error.strerror or error}"
        raise RecipeError(f"dataset={dataset!r}: {fault}. Remove it, or make it readable.") from error


def _check_file(dataset: str, file: Path, column: str) -> None:
    """The first megabytes of a file: bad rows are skipped later, but not where they are many, or say something else."""
    good, bad, size = 0, [], 0
    for chunk in readers.chunks(file):
        for row in readers.rows(chunk, column, PIECE):
            bad += [row] if row.fault else []
            good += not row.fault
            if row.fault.endswith("not UTF-8") or (size := size + len(row.text)) > HEAD:
                break
        if size > HEAD or (bad and bad[-1].fault.endswith("not UTF-8")):
            break
    if bad and (bad[-1].fault.endswith("not UTF-8") or len(bad) > MOST_BAD * (good + len(bad))):
        row = bad[-1] if bad[-1].fault.endswith("not UTF-8") else bad[0]
        share = "" if row.fault.endswith("not UTF-8") else f" ({len(bad):,} of the first {good + len(bad):,} rows)"
        raise RecipeError(_wrong_kind(dataset, f"{file}, {readers.place(file, row)}: {row.fault}{share}"))


def _wrong_kind(dataset: str, fault: str) -> str:
    if fault.endswith("not UTF-8"):
        cure = "Convert it: iconv -f LATIN1 -t UTF-8 FILE > NEW (or -f UTF-16)"
    elif "column" in fault:
        cure = "Set text_column to the one that holds the text, or convert its values to text"
    else:
        cure = "Repair the file or remove it"
    return f"dataset={dataset!r}: {fault}. {cure}."


def is_local(dataset: str) -> bool:
    """Whether the source is a file or folder here. If not, it must at least look like a Hub id."""
    if dataset.strip("/ ") and Path(dataset).exists():
        return True
    named_as_file = dataset.lower().endswith((*text_files.KINDS, *text_files.COMPRESSED))
    if not dataset.strip("/ ") or dataset.startswith((".", "/", "~")) or dataset.count("/") > 1 or named_as_file:
        raise RecipeError(
            f"dataset={dataset!r}: no such file or folder, and not a Hub id (USER/NAME). builtin is the toy world; "
            "write a home folder in full, not as ~."
        )
    return False


def _note_skipped(record: logging.LogRecord) -> bool:
    if (message := record.getMessage()).startswith("Skipping bad file"):
        skip_file(message.split("'")[1], "damaged")
    return True


logging.getLogger("datasets.packaged_modules.parquet.parquet").addFilter(_note_skipped)
