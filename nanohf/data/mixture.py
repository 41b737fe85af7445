"""A recipe's mixture as the trainer gets it: rows of token ids and labels, and what each source gave.

Conversations go through the tokenizer's chat template; labels are -100 where the assistant does not speak. Documents
have pretraining's form, a BOS and the text, all of it trained; one that is longer than a row continues in the next.

All cores make the rows, or as many as TRL's dataset_num_proc says; how many changes neither the rows nor their order.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, List, Value, concatenate_datasets

from nanohf import console
from nanohf.data.chat_source import ChatSource
from nanohf.data.conversations import documents, none_left, reader, source_table
from nanohf.data.row_faults import Faults
from nanohf.data.spread import available_cores, in_order
from nanohf.errors import RecipeError
from nanohf.tokenizer.train_bpe import encode_documents

ROWS = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})
COUNTED = Features({**ROWS, "tokens": Value("int64"), "trained": Value("int64"), "cut": Value("bool")})
AT_ONCE = 500  # conversations or documents; fewer are not worth a process
TOKENS_AT_ONCE = 100_000  # about as many
SAID_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class Given:
    """What one source gives to a mixture."""

    name: str
    rows: int  # conversations, or documents and their further pieces; repeats included
    tokens: int
    trained: int  # tokens with a label
    cut: int = 0  # rows whose end max_length cuts off; of documents, those that continue in a further row
    malformed: int = 0  # left out: no conversation could be made of them
    untrained: int = 0  # left out: no trained token within max_length
    reason: str = ""  # what is wrong with them, counted


@dataclass(frozen=True)
class Part:
    """One source's rows (COUNTED), each once, and the fields of Given that say what was left out."""

    rows: Dataset
    left_out: dict[str, Any]


def mixture(tokenizer, sources: list[ChatSource], args: Any) -> tuple[Dataset, list[Given]]:
    """All sources' rows {input_ids, labels}, each as often as its epochs say, shuffled by args.seed.

    args: TRL's SFTConfig, of which max_length, packing, packing_strategy, assistant_only_loss and dataset_num_proc
    count. A share of documents is reckoned in tokens.

    Raises:
        RecipeError: a source gives no row, mostly malformed ones, or lacks its converter's columns.
    """
    return mixed(mixture_parts(tokenizer, sources, args), sources, args.seed)


def mixture_parts(
    tokenizer, sources: list[ChatSource], args: Any, files: list[Path] | None = None, measured: bool = False
) -> list[Part]:
    """Each source's rows, in memory or in the files, one for each source. measured: of an eval_mixture."""
    to: list[Path | None] = [*files] if files else [None] * len(sources)
    parts = {
        i: source_part(tokenizer, source, args, to[i], measured=measured)
        for i, source in enumerate(sources)
        if not source.share
    }
    others = sum(repeated(parts[i], sources[i])[1].tokens for i in parts)
    shares = sum(source.share or 0 for source in sources)
    for i, source in enumerate(sources):
        if source.share:
            parts[i] = source_part(tokenizer, source, args, to[i], others * source.share / (1 - shares))
    return [parts[i] for i in range(len(sources))]


def mixed(parts: list[Part], sources: list[ChatSource], seed: int) -> tuple[Dataset, list[Given]]:
    tables, given = zip(*map(repeated, parts, sources), strict=True)
    return concatenate_datasets(tables).shuffle(seed=seed), list(given)


def source_part(
    tokenizer, source: ChatSource, args: Any, file: Path | None = None, tokens: float = inf, measured: bool = False
) -> Part:
    """
    Args:
        file: where the rows are to be stored, if not in memory.
        tokens: of documents, so many instead of source.rows. A text that has fewer begins again, as in pretraining.
        measured: with source.held_out, the rows that are held out instead of those to train on.
    """
    if source.is_document:
        return Part(_document_rows(tokenizer, source, args, file, tokens), {})
    table = source_table(source)
    read = reader(source, table, measured)
    rows, faults, untrained = _rows(tokenizer, table.data, args, read, file, source.name)
    faults.refuse_most(f"source {source.name}", len(table))
    return Part(rows, {"malformed": len(faults), "untrained": untrained, "reason": faults.summary()})


def repeated(part: Part, source: ChatSource) -> tuple[Dataset, Given]:
    """The rows as often as source.epochs says.

    Raises:
        RecipeError: none is left.
    """
    order = [i % len(part.rows) for i in range(round(len(part.rows) * source.epochs))]
    if not order:
        raise RecipeError(none_left(source))
    table = part.rows.select(order)
    tokens, trained, cut = (int(numpy.sum(table[name][:])) for name in ("tokens", "trained", "cut"))
    return table.select_columns(list(ROWS)), Given(source.name, len(table), tokens, trained, cut, **part.left_out)


def conversation_rows(tokenizer, table: Dataset, args: Any) -> tuple[Dataset, int]:
    """Each conversation's row (COUNTED), and how many have no trained token within max_length and are left out."""
    rows, _, untrained = _rows(tokenizer, table, args, _without_fault)
    return rows, untrained


def _without_fault(row: dict) -> dict:
    return row | {"fault": ""}


def _rows(
    tokenizer, table: Dataset, args: Any, read: Callable, file: Path | None = None, name: str = ""
) -> tuple[Dataset, Faults, int]:
    """read: a stored row's {messages, fault}. Returns rows, what is wrong with others, and how many are untrained."""
    cuts = not args.packing or args.packing_strategy == "bfd"  # the other strategies split what is too long
    work = partial(
        _conversations,
        tokenizer=tokenizer,
        features=table.features,
        read=read,
        limit=args.max_length if cuts else None,
        assistant_only=args.assistant_only_loss,
    )
    faults, untrained, at = Faults(), 0, 0

    def made() -> Iterator[pa.Table]:
        nonlocal untrained, at
        pieces = table.with_format("arrow").iter(AT_ONCE)
        said = Said(name, "rows", len(table))
        for rows, wrong, left_out in in_order(work, pieces, processes(args, len(table) / AT_ONCE)):
            for i, reason in wrong:
                faults.add(at + i, reason)
            untrained += left_out
            at += AT_ONCE
            said.at(min(at, len(table)))
            yield rows

    return _stored(made(), file), faults, untrained


def processes(args: Any, pieces: float) -> int:
    return max(1, min(args.dataset_num_proc or available_cores(), int(pieces)))


def _conversations(
    table: pa.Table, tokenizer, features: Features, read: Callable, limit: int | None, assistant_only: bool
) -> tuple[pa.Table, list[tuple[int, str]], int]:
    """The rows of some conversations, (number, reason) of each that is none, and how many have nothing to train on."""
    rows, faults = [], []
    for i, row in enumerate(Dataset(table, DatasetInfo(features=features), fingerprint="not needed")):
        if fault := (found := read(row))["fault"]:
            faults.append((i, fault))
        elif found["messages"]:
            rows.append(_conversation(found["messages"], tokenizer, limit, assistant_only))
    kept = [row for row in rows if row["trained"]]
    return _table(kept), faults, len(rows) - len(kept)


def _conversation(messages: list[dict], tokenizer, limit: int | None, assistant_only: bool) -> dict:
    output = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = output["input_ids"][:limit], output["assistant_masks"][:limit]
    labels = [i if trained or not assistant_only else -100 for i, trained in zip(ids, mask, strict=True)]
    return _counted(ids, labels, cut=len(ids) < len(output["input_ids"]))


def _document_rows(tokenizer, source: ChatSource, args: Any, file: Path | None, tokens: float) -> Dataset:
    """The first documents of the source, as many as it or `tokens` says, in pieces of max_length tokens."""
    texts = _texts(source, endless=tokens < inf)
    work = partial(_documents, tokenizer=tokenizer, limit=args.max_length)
    pieces = iter(lambda: list(islice(texts, AT_ONCE)), [])
    expected = (source.rows or 0) / AT_ONCE if tokens == inf else tokens / TOKENS_AT_ONCE

    def made() -> Iterator[pa.Table]:
        taken, said = 0, Said(source.name, "tokens", tokens if tokens < inf else None)
        for rows, sizes in in_order(work, pieces, processes(args, expected)):
            kept = 0
            for pieces_of_it, tokens_of_it in sizes:
                if taken < tokens:
                    kept, taken = kept + pieces_of_it, taken + tokens_of_it
            yield rows.slice(0, kept)
            said.at(taken)
            if taken >= tokens:
                break

    rows = _stored(made(), file)
    if not len(rows):
        raise RecipeError(f"source {source.name} has no text")
    return rows


def _documents(texts: list[str], tokenizer, limit: int | None) -> tuple[pa.Table, list[tuple[int, int]]]:
    """The rows of some documents, and how many rows and tokens each has."""
    documents = [_pieces(ids, limit) for ids in encode_documents(tokenizer, texts)]
    sizes = [(len(rows), sum(row["tokens"] for row in rows)) for rows in documents]
    return _table([row for rows in documents for row in rows]), sizes


def _texts(source: ChatSource, endless: bool) -> Iterator[str]:
    """Texts that are not empty; endless: over and over."""
    stream = documents(source) if endless else documents(source).take(source.rows)
    found = True
    while found:
        found = False
        for row in stream:
            if row["text"]:
                yield row["text"]
                found = endless


def _pieces(ids: list[int], limit: int | None) -> list[dict]:
    """A document's rows: each begins with BOS, each but the last is full."""
    room = (limit or len(ids)) - 1
    pieces = [[ids[0], *ids[at : at + room]] for at in range(1, len(ids), room)]
    return [_counted(piece, piece, cut=piece is not pieces[-1]) for piece in pieces]


def _counted(ids: list[int], labels: list[int], cut: bool) -> dict:
    trained = len(labels[1:]) - labels[1:].count(-100)  # the first is predicted from nothing
    return {"input_ids": ids, "labels": labels, "tokens": len(ids), "trained": trained, "cut": cut}


def _table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=COUNTED.arrow_schema)


def _stored(tables: Iterator[pa.Table], file: Path | None) -> Dataset:
    """Written to the file as they come, and read from there as far as they are asked for; or all in memory."""
    schema = COUNTED.arrow_schema
    if file is None:
        return Dataset(pa.concat_tables([schema.empty_table(), *tables]))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)
    return Dataset.from_file(str(file))


class Said:
    """Says now and then how far the rows of a source are."""

    def __init__(self, source: str, unit: str, total: float | None):
        self.source, self.unit, self.total = source, unit, total
        self.started = self.last = time.perf_counter()

    def at(self, done: int) -> None:
        now = time.perf_counter()
        if now - self.last >= SAID_EVERY:
            self.last = now
            total = f" of {self.total:,.0f}" if self.total else ""
            speed = done / (now - self.started)
            console.progress(f"tokenising {self.source}: {done:,}{total} {self.unit}, {speed:,.0f} per second")
