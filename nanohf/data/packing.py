"""Documents to rows for pretraining: tokenised ahead of the step, packed, split by rank, resumable to the token.

Every row is full and starts with BOS: nothing is padded, nothing dropped. A row begins with a document, and documents
meet in a row that they fill exactly, as far as there are such; else the last of them is cut, and its rest, behind a
BOS of its own, follows inside another row. Where documents are longer than rows, rests pile up; then rows begin with
rests too. An epoch ends when all of its text was given out; only one row holds text of two.
"""

import base64
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from datasets import IterableDataset

from nanohf.data.pieces import pieces
from nanohf.data.text_stream import TextStream

WAITING = 32  # rows' worth of rests; when more wait, they begin rows
ATTEMPTS = 6  # to read on when a stream dies, the pause between them doubling from a second on
CHUNK = 128  # documents that are read and tokenised at a time
CHUNK_CHARACTERS = 400_000


# Where the next chunk begins: `skip` pieces behind the stream's state, at piece `position` of the epoch over all ranks.
# The other counts are this rank's; `whole`: its tokens of a whole epoch, once it has read one.
OF_AN_EPOCH: dict = {"position": 0, "skip": 0, "ended": False, "epoch_tokens": 0, "stream": None}
BEGINNING = OF_AN_EPOCH | {"epoch": 0, "documents": 0, "empty": 0, "tokens": 0, "bytes": 0, "whole": 0, "read": []}


class Piece(NamedTuple):
    ids: np.ndarray  # BOS in front
    begins: bool  # a document; False: it is the rest of one


class PackedLoader:
    """Endless batches (rows, length) of token ids. `load_state_dict` resumes exactly where `state_dict` was taken.

    Args:
        stream: {"text": str} documents, with state_dict; epochs follow each other without end. Long ones are read in
            pieces; of a stream that gives such pieces itself, "begins" says which are a document's first.
        encode: texts to token ids, each starting with BOS.
        rank, world_size: piece number n of an epoch is read by rank n % world_size.
        buffer_size: documents to choose from when a row is filled, or as many rows' worth of longer ones; more cut
            fewer and hold more memory.

    Raises:
        ValueError: the stream has no text for this rank.
        ConnectionError: the stream died, also when it was opened again several times.
    """

    def __init__(
        self,
        stream: TextStream | IterableDataset,
        encode: Callable[[list[str]], list[list[int]]],
        rows: int,
        length: int,
        rank: int = 0,
        world_size: int = 1,
        buffer_size: int = 512,
    ):
        self.stream, self.encode = stream, encode
        self.rows, self.length = rows, length
        self.rank, self.world_size = rank, world_size
        self.buffer_size = buffer_size
        self.buffer: list[Piece] = []  # documents that wait, oldest first
        self.rests: list[Piece] = []  # of documents that were cut, oldest first
        self.tokens = self.continued = self.aligned = 0  # given out; in rests among these; rows that begin a document
        self.place = dict(BEGINNING)  # where the next chunk begins
        self.seconds = 0.0  # that the caller waited for batches
        self._thread = ThreadPoolExecutor(1, "loader")
        self._ahead: Future | None = None
        self._texts: Iterator | None = None  # the thread's, over the stream
        self._text_bytes: int | None = None

    def __iter__(self):
        return self

    def __next__(self) -> torch.Tensor:
        started = time.perf_counter()
        batch = torch.from_numpy(np.stack([self._row() for _ in range(self.rows)])).long()
        self.tokens += batch.numel()
        self.seconds += time.perf_counter() - started
        return batch

    def shares(self) -> dict[str, float]:
        """Of the rows given out, those that begin with a document; of the tokens, those apart from its beginning."""
        rows = max(1, self.tokens // self.length)
        return {"aligned": self.aligned / rows, "continued": self.continued / max(1, self.tokens)}

    def epoch_tokens(self) -> int | None:
        """Tokens of an epoch over all ranks: counted once one was read, else estimated; None if there is no saying.

        Estimated: the source's bytes of text by the tokens per byte of what was read so far, of which there is some.
        """
        if self.place["whole"]:
            return self.place["whole"] * self.world_size
        if self._text_bytes is None and hasattr(self.stream, "text_bytes"):
            self._text_bytes = self.stream.text_bytes()
        if not self._text_bytes:
            return None
        self._fill()
        return round(self._text_bytes * self.place["tokens"] / max(1, self.place["bytes"]))

    def epochs(self) -> float | None:
        """How often the text was given out so far; None if its size is not known."""
        if not (whole := self.epoch_tokens()):
            return None
        waiting = sum(len(piece.ids) for piece in self.buffer + self.rests)
        given = (self.place["epoch_tokens"] - waiting) * self.world_size / whole
        return self.place["epoch"] + min(1.0, max(0.0, given))

    def _row(self) -> np.ndarray:
        row, room = [], self.length
        while room:
            for piece in self._next_pieces(room):
                if room == self.length:
                    self.aligned += piece.begins
                row.append(self._fit(piece, room))
                room -= len(row[-1])
        return np.concatenate(row)

    def _next_pieces(self, room: int) -> list[Piece]:
        """A row begins with the oldest document, or a rest if many wait. Then a rest that is shorter than a row
        follows, else other documents until some fill the row exactly."""
        self._fill()
        if room == self.length:
            waiting = sum(len(rest.ids) for rest in self.rests)
            rests_are_due = not self.buffer or waiting > WAITING * self.length
            return [self.rests.pop(0) if rests_are_due else self.buffer.pop(0)]
        short = next((i for i, rest in enumerate(self.rests) if len(rest.ids) < self.length), None)
        if short is not None or not self.buffer:
            return [self.rests.pop(short or 0)]
        lengths = np.array([len(ids) for ids, _ in self.buffer])
        last, over = closing(lengths, room)
        fits = np.flatnonzero(lengths <= room)
        chosen = fits[:1].tolist() if over and len(fits) else last or [0]
        documents = [self.buffer[i] for i in chosen]
        for i in sorted(chosen, reverse=True):
            del self.buffer[i]
        return documents

    def _fit(self, piece: Piece, room: int) -> np.ndarray:
        """As much of the piece as there is room for. Its rest, with a BOS of its own, waits."""
        if len(piece.ids) > room:
            rest = piece.ids[room - 1 :].copy()
            rest[0] = piece.ids[0]
            self.rests.append(Piece(rest, False))
        self.continued += 0 if piece.begins else min(room, len(piece.ids))
        return piece.ids[:room]

    def _fill(self) -> None:
        """Reads until there is enough to choose from, into the next epoch only when nothing waits."""
        while True:
            enough = len(self.buffer) >= self.buffer_size
            enough = enough or sum(len(document.ids) for document in self.buffer) >= self.buffer_size * self.length
            if enough or (self.place["ended"] and (self.buffer or self.rests)):
                return
            self._refill()

    def _refill(self) -> None:
        ahead = self._ahead or self._thread.submit(self._read, self.place)
        self._ahead = None
        documents, self.place = ahead.result()
        self.buffer += documents
        self._ahead = self._thread.submit(self._read, self.place)

    def _read(self, place: dict) -> tuple[list[Piece], dict]:
        """The documents of the next chunk, and the place behind it. Runs in the thread: the tokenizer needs no GIL."""
        for attempt in range(ATTEMPTS):
            try:
                texts, behind = self._next_texts(place)
                break
            except OSError as error:
                if attempt == ATTEMPTS - 1:
                    raise ConnectionError(
                        f"the text source failed {ATTEMPTS} times in a row behind document {place['position']:,} of "
                        f"epoch {place['epoch']} ({type(error).__name__}: {error}). If a file is damaged, fetch it "
                        "again or remove it; then run the same command"
                    ) from error
                self._texts = None
                time.sleep(2**attempt)
        encoded = self.encode([text for text, _ in texts])
        documents = [
            Piece(np.array(ids, dtype=np.int32), begins) for ids, (_, begins) in zip(encoded, texts, strict=True)
        ]
        tokens = sum(map(len, encoded))
        for name in ("tokens", "epoch_tokens"):
            behind[name] += tokens
        if behind["ended"]:
            behind["whole"] = behind["epoch_tokens"]
        return documents, behind

    def _next_texts(self, place: dict) -> tuple[list[tuple[str, bool]], dict]:
        """This rank's next texts from a place on, at most to the epoch's end; whether each begins a document."""
        behind = dict(place)
        if behind["ended"]:
            behind |= OF_AN_EPOCH | {"epoch": behind["epoch"] + 1}
            self._texts = None
        if self._texts is None:
            self._texts = self._open(behind)
        texts: list[tuple[str, bool]] = []
        characters = 0
        while len(texts) < CHUNK and characters < CHUNK_CHARACTERS:
            if (found := next(self._texts, None)) is None:
                if behind["documents"] + len(texts) == 0:
                    raise ValueError("the text source has no text: an epoch passed without a document")
                behind["ended"] = True
                break
            text, begins, is_last = found
            if behind["position"] % self.world_size == self.rank and not _was_read(behind):
                texts += [(text, begins)] if text else []
                behind["empty"] += not text
                characters += len(text)
            behind["position"] += 1
            behind["skip"] += 1
            if is_last and (len(texts) >= CHUNK or characters >= CHUNK_CHARACTERS):
                behind |= {"stream": self.stream.state_dict(), "skip": 0}
        behind["documents"] += len(texts)
        behind["bytes"] += sum(len(text.encode()) for text, _ in texts)
        return texts, behind

    def _open(self, place: dict) -> Iterator[tuple[str, bool, bool]]:
        self.stream.set_epoch(place["epoch"])  # before load_state_dict, which would otherwise start over without a word
        if place["stream"]:
            self.stream.load_state_dict(place["stream"])
        return islice(self._pieces(), place["skip"], None)

    def _pieces(self) -> Iterator[tuple[str, bool, bool]]:
        """Each text, whether it begins a document, and whether it is the last of its row of the stream."""
        for row in self.stream:
            cut = list(pieces(row["text"] or ""))
            for i, text in enumerate(cut):
                yield text, i == 0 and row.get("begins", True), i == len(cut) - 1

    def state_dict(self) -> dict:
        """JSON, a few bytes for each token that waits."""
        counts = [self.tokens, self.continued, self.aligned]
        return {"buffer": frozen(self.buffer), "rests": frozen(self.rests), "place": self.place, "counts": counts}

    def load_state_dict(self, state: dict) -> None:
        if self._ahead:
            self._ahead.exception()  # wait for it, and forget it
        self._ahead = self._texts = None
        self.buffer, self.rests = thawed(state["buffer"]), thawed(state["rests"])
        self.place = state["place"]
        self.tokens, self.continued, self.aligned = state["counts"]


def dealt(states: list[dict], rank: int, world_size: int) -> dict:
    """The states of all ranks as that of one rank of another number: nothing is lost, nothing read twice."""
    places = [state["place"] for state in states]
    reached = [[p["epoch"] + 1, 0] if p["ended"] else [p["epoch"], p["position"]] for p in places]
    first = places[reached.index(min(reached))]
    share = {
        name: sum(place[name] for place in places) // world_size
        for name in ("documents", "empty", "tokens", "bytes", "whole", "epoch_tokens")
    }
    waiting = {
        name: frozen([piece for state in states for piece in thawed(state[name])][rank::world_size])
        for name in ("buffer", "rests")
    }
    counts = [sum(count) // world_size for count in zip(*(state["counts"] for state in states), strict=True)]
    return waiting | {"place": first | share | {"read": [*first["read"], reached]}, "counts": counts}


def _was_read(place: dict) -> bool:
    """Whether the piece at this place was read before the number of ranks changed: each had reached another."""
    at = [place["epoch"], place["position"]]
    return any(at < reached[place["position"] % len(reached)] for reached in place["read"])


def frozen(waiting: list[Piece]) -> dict:
    """Pieces as JSON."""
    ids = np.concatenate([piece.ids for piece in waiting]) if waiting else np.zeros(0, dtype=np.int32)
    return {
        "lengths": [len(piece.ids) for piece in waiting],
        "begins": [int(piece.begins) for piece in waiting],
        "ids": base64.b64encode(zlib.compress(ids.tobytes(), 1)).decode(),
    }


def thawed(state: dict) -> list[Piece]:
    ids = np.frombuffer(zlib.decompress(base64.b64decode(state["ids"])), dtype=np.int32)
    parts = np.split(ids, np.cumsum(state["lengths"])[:-1]) if state["lengths"] else []
    return [Piece(part, bool(begins)) for part, begins in zip(parts, state["begins"], strict=True)]


def closing(lengths: np.ndarray, room: int) -> tuple[list[int], int]:
    """The one or two documents that fill the room with the fewest tokens left over, and how many these are.

    Where no two of them fill it, all there are: none, and `room` left over.
    """
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    best, over = [], room
    if (single := np.searchsorted(ordered, room)) < len(ordered):
        best, over = [single], ordered[single] - room
    if over:
        first = np.flatnonzero(ordered < room)
        second = np.searchsorted(ordered, room - ordered[first])
        second += second == first
        first, second = first[second < len(ordered)], second[second < len(ordered)]
        overs = ordered[first] + ordered[second] - room
        if len(overs) and (not best or overs.min() < over):
            best, over = [first[overs.argmin()], second[overs.argmin()]], overs.min()
    return [int(order[i]) for i in best], int(over)
