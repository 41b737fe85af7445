"""Own text as a stream of documents: shuffled by seed, one share of it held out, resumable exactly with a small state.

Parts of all files are read side by side in an order drawn from seed and epoch, and a few megabytes at a time are
shuffled. A state says where the block began and how much of it was given out; going on reads that block again.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from math import nextafter
from pathlib import Path
from random import Random

import pyarrow.parquet
from datasets import IterableDataset

from nanohf import console
from nanohf.data import text_readers as readers
from nanohf.data.pieces import PIECE, pieces
from nanohf.data.text_files import kind

SIDE_BY_SIDE = 16  # parts of files that are open at a time
BLOCK = 8_000_000  # characters that are shuffled at a time
HELD_OUT = 0.01  # of the documents; a document longer than PIECE counts as its pieces
ENOUGH = 20  # pieces in a source; one with fewer is cut finer, so that a small part can be held out
SMALLEST = 200  # characters of a piece
SAMPLE = 4_000_000  # bytes of text that the size of the rest is told by


class LocalText:
    """Files on this machine: {"text": str, "begins": bool} in pieces of at most `limit` characters."""

    def __init__(self, files: list[Path], column: str, limit: int = PIECE):
        self.files, self.column, self.limit = files, column, limit
        self.chunks = [chunk for file in files for chunk in readers.chunks(file)]
        self._open: deque[list] = deque()  # [its turn in the order, rows read of it, reader]
        self._next = 0

    def signature(self) -> str:
        """Changes with the files' names and sizes."""
        return _digest(f"{file} {file.stat().st_size} {self.limit}" for file in self.files)

    def place(self) -> dict:
        """Behind the last row that was read."""
        return {"open": [[turn, read] for turn, read, _ in self._open], "next": self._next}

    def read(self, order: Random, place: dict | None = None) -> Iterator[list[dict]]:
        """An epoch from a place on, a piece at a time; `order` is to be the same for the whole epoch."""
        chunks = order.sample(self.chunks, len(self.chunks))
        place = place or {"open": [], "next": 0}
        self._open = deque([turn, read, self._reader(chunks[turn], read)] for turn, read in place["open"])
        self._next = place["next"]
        while True:
            while len(self._open) < SIDE_BY_SIDE and self._next < len(chunks):
                self._open.append([self._next, 0, self._reader(chunks[self._next])])
                self._next += 1
            if not self._open:
                return
            part = self._open[0]
            if (row := next(part[2], None)) is None:
                self._open.popleft()
                continue
            part[1] += 1
            self._open.rotate(-1)
            yield [{"text": row.text, "begins": row.begins}]

    def _reader(self, chunk: readers.Chunk, skip: int = 0) -> Iterator[readers.Row]:
        return islice(readers.read(chunk, self.column, self.limit), skip, None)

    def text_bytes(self) -> int:
        """About how many bytes of text there are: by .parquet's own figures, else by the beginning of a file."""
        sizes: Counter[Path] = Counter()
        shares: dict[tuple[str | None, str], float] = {}
        total = 0.0
        for chunk in self.chunks:
            sizes[chunk.file] += chunk.size
        for file, size in sizes.items():
            alike = (kind(file), file.suffix.lower())
            if kind(file) == "parquet":
                total += _column_bytes(file, self.column)
            elif size:
                shares[alike] = shares.get(alike) or self._share(file, size)
                total += size * shares[alike]
        return round(total)

    def _share(self, file: Path, size: int) -> float:
        """Bytes of text per byte of the file, by its beginning."""
        text = 0
        with file.open("rb") as raw:
            for row in readers.rows(readers.Chunk(file), self.column, self.limit, raw):
                if (text := text + len(row.text.encode())) > SAMPLE:
                    return text / raw.tell()
        return text / size


def _column_bytes(file: Path, column: str) -> int:
    with pyarrow.parquet.ParquetFile(file) as opened:
        groups = [opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups)]
        columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == column)


class HubText:
    """Files that `datasets` streams: `load(files)` opens them, in an order drawn for each epoch."""

    def __init__(self, files: list[str], column: str, load: Callable[[list[str]], IterableDataset], size: int | None):
        self.files, self.column, self.load, self.size = files, column, load, size
        self.limit = PIECE
        self._stream: IterableDataset | None = None

    def signature(self) -> str:
        """Changes with the files' addresses, which hold the revision."""
        return _digest(self.files)

    def place(self) -> dict:
        return self._stream.state_dict()

    def read(self, order: Random, place: dict | None = None) -> Iterator[list[dict]]:
        """The same, but a document at a time, in pieces: the stream's state is that behind a whole one."""
        self._stream = self.load(order.sample(self.files, len(self.files)))
        if place:
            self._stream.load_state_dict(place)
        for row in self._stream:
            cut = enumerate(pieces(row[self.column] or "", self.limit))
            yield [{"text": piece, "begins": i == 0} for i, piece in cut]

    def text_bytes(self) -> int | None:
        return self.size


class TextStream:
    """The documents of a source, over and over if set_epoch is called between.

    Args:
        seed: of the order. Which documents are held out does not depend on it.
        part: "train" or "validation" of a source that has no split of its own for validation; None: all of it.
            Held out is what a hash of the text chooses, so equal texts are never on both sides.

    Raises:
        ValueError: the source has no text, or a single short document where two parts are wanted.
    """

    def __init__(self, source: LocalText | HubText, seed: int = 0, part: str | None = None):
        self.source, self.seed, self.part = source, seed, part
        self.below = 0.0 if part is None else _threshold(source)
        self.epoch = 0
        self._start: dict = {}
        self._state: dict = {}
        self.signature = source.signature()

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self._start, self._state = epoch, {}, {}

    def state_dict(self) -> dict:
        """Behind the last document given out."""
        return dict(self._state)

    def load_state_dict(self, state: dict) -> None:
        """The next iteration begins there; the ones after it at the beginning again.

        Where the files are not those of the state, the epoch starts over, with a warning.
        """
        if state and state["source"] != self.signature:
            console.warning("the text has changed since the checkpoint (files or sizes): its epoch starts over")
            state = {}
        self._start, self._state = dict(state), dict(state)

    def __iter__(self) -> Iterator[dict]:
        start, self._start = self._start, {}
        place, number, given = start.get("place"), start.get("block", 0), start.get("given", 0)
        documents = self.source.read(self._random("files"), place)
        more = True
        while more:
            block, more = self._block(documents)
            self._random(number).shuffle(block)
            for i, row in enumerate(block[given:], given + 1):
                self._state = {"place": place, "block": number, "given": i, "source": self.signature}
                yield row
            place, number, given = self.source.place(), number + 1, 0

    def _block(self, documents: Iterator[list[dict]]) -> tuple[list[dict], bool]:
        """The next few megabytes, and whether there may be more behind them."""
        block, size = [], 0
        for rows in documents:
            block += rows if self.part is None else [row for row in rows if self._is_wanted(row["text"])]
            if (size := size + sum(len(row["text"]) + 1 for row in rows)) > BLOCK:
                return block, True
        return block, False

    def _is_wanted(self, text: str) -> bool:
        return (share(text) < self.below) == (self.part == "validation")

    def _random(self, what) -> Random:
        return Random(f"{self.seed} {self.epoch} {what}")

    def take(self, documents: int) -> Iterator[dict]:
        return islice(self, documents)

    def text_bytes(self) -> int | None:
        """About how many bytes of text an epoch has, without what is held out; None if that is not known."""
        whole = self.source.text_bytes()
        if whole is None or self.part is None:
            return whole
        return round(whole * (self.below if self.part == "validation" else 1 - self.below))


def _digest(lines: Iterable[str]) -> str:
    return blake2b("\n".join(lines).encode(errors="surrogateescape"), digest_size=8).hexdigest()


def share(text: str) -> float:
    """A number from 0 to 1 that depends on the text alone."""
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest()) / 2**64


def _threshold(source: LocalText | HubText) -> float:
    """Held out is what lies below: HELD_OUT of all, or in a small source the lowest so that there is one."""
    lowest, texts, characters = 1.0, set(), 0
    for row in (row for rows in source.read(Random("held out")) for row in rows):
        if row["text"].strip():
            lowest, characters = min(lowest, share(row["text"])), characters + len(row["text"])
            texts.add(hash(row["text"]))
        if lowest < HELD_OUT and len(texts) >= ENOUGH:
            return HELD_OUT
    if len(texts) < ENOUGH and source.limit == PIECE and characters:
        source.limit = min(PIECE - 1, max(characters // 50, SMALLEST))
        return _threshold(source)
    if len(texts) < 2:
        raise ValueError(
            f"holds a single text of {characters:,} characters, so none is left for validation. Use more text, or put "
            "text for validation into a subfolder of that name"
            if characters
            else "holds no documents with text"
        )
    return max(HELD_OUT, nextafter(lowest, 1.0))
