"""Text out of files, row by row: .parquet, .jsonl, .json, .txt and .csv, also compressed.

Only the text column is read. A row that cannot be read comes as a fault with its place, and the rows behind it follow.
"""

import codecs
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow
import pyarrow.parquet

from nanohf.data.pieces import joined
from nanohf.data.skipped import skip_file, skip_row
from nanohf.data.text_files import kind, uncompressed
from nanohf.errors import RecipeError

CHUNK_BYTES = 1_000_000  # of a file whose lines can be read from anywhere
SEPARATOR = "<|endoftext|>"  # between the documents of one .txt, as in TinyStories
BETWEEN = re.compile(r"[\s,]*")  # the objects of an array
BOM = codecs.BOM_UTF8
DAMAGED = (EOFError, zlib.error, pyarrow.ArrowException, OSError)

Readable = BinaryIO | gzip.GzipFile


class Chunk(NamedTuple):
    """A part of a file that is read on its own."""

    file: Path
    start: int = 0  # byte, or row group of a .parquet
    stop: int = sys.maxsize
    size: int = 0  # bytes


class Row(NamedTuple):
    text: str
    begins: bool = True  # a document; False: it is the continuation of one
    fault: str = ""  # why there is no text
    where: int = 0  # the first byte of a line, or the number of a row, from 1


def chunks(file: Path) -> list[Chunk]:
    """The parts of a file: row groups, or about a megabyte of lines. What can only be read in order is one part."""
    size = file.stat().st_size
    if kind(file) == "parquet":
        return _row_groups(file)
    if kind(file) == "csv" or uncompressed(file.name) != file.name or (kind(file) == "json" and _is_array(file)):
        return [Chunk(file, size=size)]
    starts = range(0, size, CHUNK_BYTES)
    return [Chunk(file, at, min(size, at + CHUNK_BYTES), min(size - at, CHUNK_BYTES)) for at in starts]


def _row_groups(file: Path) -> list[Chunk]:
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            groups = [opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups)]
    except DAMAGED as error:
        skip_file(str(file), f"damaged ({_short(error)})")
        return []
    return [Chunk(file, i, i + 1, group.total_byte_size) for i, group in enumerate(groups)]


def read(chunk: Chunk, column: str, limit: int) -> Iterator[Row]:
    """The chunk's texts, long ones in pieces of `limit` characters. Faults are noted in `skipped_files`."""
    for row in rows(chunk, column, limit):
        if row.fault:
            skip_row(str(chunk.file), place(chunk.file, row), row.fault)
        else:
            yield row


def rows(chunk: Chunk, column: str, limit: int, file: BinaryIO | None = None) -> Iterator[Row]:
    """The same with the faults. A file that breaks off ends there, and is noted. file: the chunk's own, if open."""
    try:
        for row in _of_kind(chunk, column, limit, file):
            if not row.text.isascii() and (fault := _half_characters(row.text)):
                row = row._replace(text="", fault=fault)
            if len(row.text) <= limit:
                yield row
            else:
                yield from (Row(piece, begins and row.begins) for piece, begins in joined([row.text], limit))
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno:  # the disk or the network, not the file
            raise
        skip_file(str(chunk.file), f"damaged ({_short(error)})")


def _half_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if "\udc80" <= text[error.start] <= "\udcff":
            return "it is not UTF-8"
        return "it has half a character (a lone surrogate)"
    return ""


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__


def place(file: Path, row: Row) -> str:
    """The line a row begins at, counted from 1; in .parquet, .csv and JSON arrays its number."""
    if kind(file) in ("parquet", "csv") or (kind(file) == "json" and _is_array(file)):
        return f"row {row.where:,}"
    with opened(file) as raw:
        left, lines = row.where, 1
        while left and (block := raw.read(min(left, CHUNK_BYTES))):
            left -= len(block)
            lines += block.count(b"\n")
    return f"line {lines:,}"


def opened(file: Path, raw: BinaryIO | None = None) -> Readable:
    """The file's bytes, uncompressed. raw: the file itself, if it is open already."""
    raw = raw or file.open("rb")
    if file.suffix.lower() == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if file.suffix.lower() == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise RecipeError(f"{file}: .zst files need zstandard: pip install zstandard") from error
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return raw


def _of_kind(chunk: Chunk, column: str, limit: int, file: BinaryIO | None) -> Iterator[Row]:
    if kind(chunk.file) == "parquet":
        yield from _parquet(chunk, column)
        return
    with opened(chunk.file, file) as raw:
        match kind(chunk.file):
            case "text":
                yield from _text(raw, chunk, limit)
            case "csv":
                yield from _csv(raw, column)
            case "json" if _is_array(chunk.file):
                yield from _array(raw, column)
            case _:
                yield from _json_lines(raw, chunk, column)


def _cell(value, column: str, where: int) -> Row:
    if value is None or isinstance(value, str):
        return Row(value or "", where=where)
    return Row("", fault=f"column {column!r} holds {type(value).__name__} ({str(value)[:20]}), not text", where=where)


def _member(row, column: str, where: int) -> Row:
    if not isinstance(row, dict):
        return Row("", fault=f"a {type(row).__name__} and not an object with the column {column!r}", where=where)
    if column not in row:
        return Row("", fault=f"no column {column!r} but {', '.join(map(str, row)) or 'nothing'}", where=where)
    return _cell(row[column], column, where)


def _parquet(chunk: Chunk, column: str) -> Iterator[Row]:
    with pyarrow.parquet.ParquetFile(chunk.file) as file:
        number = sum(file.metadata.row_group(i).num_rows for i in range(chunk.start))
        if column not in file.schema_arrow.names:
            yield Row("", fault=f"no column {column!r} but {', '.join(file.schema_arrow.names)}", where=number + 1)
            return
        for batch in file.iter_batches(256, row_groups=[chunk.start], columns=[column]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield _cell(value, column, number)


def _lines(raw: Readable, chunk: Chunk) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in the chunk, and where. What is longer than a megabyte comes in parts."""
    if chunk.start:
        raw.seek(chunk.start - 1)
        while (tail := raw.readline(CHUNK_BYTES)) and not tail.endswith(b"\n"):
            if raw.tell() >= chunk.stop:
                return
    at, open_line = raw.tell(), False
    while (at < chunk.stop or open_line) and (line := raw.readline(CHUNK_BYTES)):
        yield at, line.removeprefix(BOM) if at == 0 else line
        at, open_line = at + len(line), not line.endswith(b"\n")


def _json_lines(raw: Readable, chunk: Chunk, column: str) -> Iterator[Row]:
    parts: list[bytes] = []
    begin = 0
    for at, part in chain(_lines(raw, chunk), [(0, b"")]):
        begin = begin if parts else at
        parts.append(part)
        if part.endswith(b"\n") or not part:
            line, parts = b"".join(parts).strip(), []
            if line:
                yield _json_line(line, column, begin)


def _json_line(line: bytes, column: str, where: int) -> Row:
    try:
        return _member(json.loads(line.decode()), column, where)
    except UnicodeDecodeError:
        return Row("", fault="it is not UTF-8", where=where)
    except (ValueError, RecursionError) as error:
        return Row("", fault=f"it is not JSON ({_short(error)})", where=where)


def _is_array(file: Path) -> bool:
    try:
        with opened(file) as raw:
            return raw.read(1000).removeprefix(BOM).lstrip()[:1] == b"["
    except DAMAGED:
        return False  # said when it is read


def _array(raw: Readable, column: str) -> Iterator[Row]:
    """The objects of one JSON array, a megabyte at a time."""
    text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape")
    decoder, size, number = json.JSONDecoder(), CHUNK_BYTES, 1
    buffer = text.read(size)
    at = buffer.index("[") + 1
    while True:
        at = BETWEEN.match(buffer, at).end()
        if buffer[at : at + 1] == "]":
            return
        try:
            value, at = decoder.raw_decode(buffer, at)
        except (ValueError, RecursionError) as error:
            if not (more := text.read(size)):
                yield Row("", fault=f"the array breaks off or is not JSON here ({_short(error)})", where=number)
                return
            buffer, at, size = buffer[at:] + more, 0, 2 * size
            continue
        yield _member(value, column, number)
        number, size = number + 1, CHUNK_BYTES


def _csv(raw: Readable, column: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
    head = text.readline()
    heads = {delimiter: next(csv.reader([head], delimiter=delimiter), []) for delimiter in ",;\t|"}
    delimiter = max(heads, key=lambda d: (column in heads[d], len(heads[d])))
    if column not in heads[delimiter]:
        if head.strip():
            fault = _half_characters(head) or f"no column {column!r} but {', '.join(heads[delimiter])}"
            yield Row("", fault=fault, where=1)
        return
    index, table = heads[delimiter].index(column), csv.reader(text, delimiter=delimiter)
    number = 1
    while True:
        number += 1
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row("", fault=f"it is not CSV ({error})", where=number)
            continue
        if len(cells) > index:
            yield Row(cells[index].replace("\r\n", "\n"), where=number)
        elif cells:
            yield Row("", fault=f"{len(cells)} fields, of which none is {column!r}", where=number)


def _text(raw: Readable, chunk: Chunk, limit: int) -> Iterator[Row]:
    """The documents between separators, long ones in pieces. What crosses the end of a chunk is cut there."""
    decoder, faults = codecs.getincrementaldecoder("utf-8")(), []

    def decoded() -> Iterator[str]:
        for at, line in _lines(raw, chunk):
            try:
                yield decoder.decode(line).replace("\r\n", "\n")
            except UnicodeDecodeError as error:
                decoder.reset()
                faults.append(Row("", fault="it is not UTF-8", where=at + error.start))

    first = chunk.start == 0
    for document in _split(decoded()):
        for piece, begins in joined(document, limit):
            yield from faults
            faults.clear()
            if piece.strip():
                yield Row(piece, begins and first)
        first = True
    yield from faults


def _split(lines: Iterator[str]) -> Iterator[Iterator[str]]:
    """The lines of each document in turn; each must be read to its end before the next."""
    rest, ended = [""], False

    def document() -> Iterator[str]:
        nonlocal ended
        line, rest[0] = rest[0], ""
        while True:
            before, separator, behind = line.partition(SEPARATOR)
            yield before
            if separator:
                rest[0] = behind.lstrip("\r\n")
                return
            if (following := next(lines, None)) is None:
                ended = True
                return
            line = following

    while not ended:
        yield document()
