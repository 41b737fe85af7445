"""Documents to rows for pretraining: tokenised ahead of the step, packed, split by rank, resumable to the token.

Every row is full and starts with BOS and the beginning of a document: nothing is padded. Documents meet in a row that
they fill exactly, as far as there are such; else the last of them is cut, and its rest follows behind the beginning of
another row. So nothing is lost where documents are no longer than a row on average. Where they are, rests are dropped:
rows cannot be filled from the middle of documents alone.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from datasets import IterableDataset

WAITING = 64  # rows' worth of rests at most; of a document, as many rows are tokenised, at 8 characters a token
ATTEMPTS = 6  # to read on when a stream dies, the pause between them doubling from a second on
CHUNK = 128  # documents that are read and tokenised at a time


class PackedLoader:
    """Endless batches (rows, length) of token ids. `state_dict` / `load_state_dict` go on exactly where it stopped.

    Args:
        stream: {"text": str} documents, with state_dict; epochs follow each other without end.
        encode: texts to token ids, each starting with BOS.
        rank, world_size: document number n of an epoch is read by rank n % world_size.
        buffer_size: documents to choose from when a row is filled; more waste less and hold more memory.

    Raises:
        ValueError: the stream has no text for this rank.
        ConnectionError: the stream died, also when it was opened anew several times.
    """

    def __init__(
        self,
        stream: IterableDataset,
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
        self.buffer: list[np.ndarray] = []  # ids of the documents that wait, oldest first
        self.rests: list[np.ndarray] = []  # of documents that were cut, newest first
        self.tokens = self.cropped = self.continued = 0  # given out; rests dropped; rests among those given out
        # Where the next chunk begins, and what was met until there. `overlong`: tokens of books that were not even
        # tokenised, as many as their characters suggest.
        self.place = {"epoch": 0, "position": 0, "documents": 0, "empty": 0, "overlong": 0, "stream": None}
        self.seconds = 0.0  # that the caller waited for batches
        self._thread = ThreadPoolExecutor(1, "loader")
        self._ahead: Future | None = None
        self._texts = None  # the thread's iterator over the stream

    def __iter__(self):
        return self

    def __next__(self) -> torch.Tensor:
        started = time.perf_counter()
        batch = torch.from_numpy(np.stack([self._row() for _ in range(self.rows)])).long()
        self.tokens += batch.numel()
        self.seconds += time.perf_counter() - started
        return batch

    def shares(self) -> dict[str, float]:
        """Of the tokens read: those no row will hold, and those that stand apart from their document's beginning."""
        waiting = sum(map(len, self.buffer)) + sum(map(len, self.rests))
        lost = self.cropped + self.place["overlong"]
        read = max(1, self.tokens + waiting + lost)
        return {"cropped": lost / read, "continued": self.continued / read}

    def _row(self) -> np.ndarray:
        """The oldest document, then a rest that waits, else other documents until some fill the row exactly."""
        while len(self.buffer) < self.buffer_size:
            self._refill()
        row = [self._fit(self.buffer.pop(0), self.length)]
        while room := self.length - sum(map(len, row)):
            if self.rests:
                row.append(self._fit(self.rests.pop(0), room))
                self.continued += len(row[-1])
                continue
            while len(self.buffer) < 2:
                self._refill()
            lengths = np.fromiter(map(len, self.buffer), int, len(self.buffer))
            last, over = closing(lengths, room)
            fits = np.flatnonzero(lengths <= room)
            for i in fits[:1].tolist() if over and len(fits) else last:
                row.append(self._fit(self.buffer[i], self.length - sum(map(len, row))))
                self.buffer[i] = None
            self.buffer = [document for document in self.buffer if document is not None]
        return np.concatenate(row)

    def _fit(self, piece: np.ndarray, room: int) -> np.ndarray:
        """As much of the piece as there is room for. Its rest, with a BOS of its own, waits for the inside of a row."""
        if len(piece) > room:
            most = WAITING * self.length
            rest = piece[room - 1 :][:most].copy()
            rest[0] = piece[0]
            self.rests.insert(0, rest)
            self.cropped += len(piece) - room + 1 - len(rest)
            while sum(map(len, self.rests)) > most:
                self.cropped += len(self.rests.pop())
        return piece[:room]

    def _refill(self) -> None:
        ahead = self._ahead or self._thread.submit(self._read)
        self._ahead = None
        documents, self.place = ahead.result()
        self.buffer += documents
        self._ahead = self._thread.submit(self._read, self.place)

    def _read(self, place: dict | None = None) -> tuple[list[np.ndarray], dict]:
        """The documents of the next chunk, and the place behind it. Runs in the thread: the tokenizer needs no GIL."""
        place = place or self.place
        for attempt in range(ATTEMPTS):
            try:
                texts, behind = self._next_texts(place)
                break
            except OSError as error:
                if attempt == ATTEMPTS - 1:
                    raise ConnectionError(
                        f"the text source failed {ATTEMPTS} times in a row behind document {place['position']:,} of "
                        f"epoch {place['epoch']} ({type(error).__name__}: {error}). If a file is damaged, fetch it "
                        "again or take it away; then go on"
                    ) from error
                self._texts = None
                time.sleep(2**attempt)
        documents = []
        most = 8 * WAITING * self.length
        for text, ids in zip(texts, self.encode([text[:most] for text in texts]), strict=True):
            behind["overlong"] += round(len(ids) * max(0, len(text) / most - 1))
            documents.append(np.array(ids, dtype=np.int32))
        return documents, behind

    def _next_texts(self, place: dict) -> tuple[list[str], dict]:
        """This rank's next texts from the given place on, over the ends of epochs."""
        if self._texts is None:
            self._open(place["epoch"], place["stream"])
        texts, behind = [], dict(place)
        while len(texts) < CHUNK:
            if (row := next(self._texts, None)) is None:
                if behind["documents"] + len(texts) == 0:
                    raise ValueError("the text source has no text: an epoch passed without a document")
                behind |= {"epoch": behind["epoch"] + 1, "position": 0}
                self._open(behind["epoch"])
                continue
            if behind["position"] % self.world_size == self.rank:
                texts += [row["text"]] if row["text"] else []
                behind["empty"] += not row["text"]
            behind["position"] += 1
        return texts, behind | {"documents": behind["documents"] + len(texts), "stream": self.stream.state_dict()}

    def _open(self, epoch: int, state: dict | None = None) -> None:
        self.stream.set_epoch(epoch)  # before load_state_dict, which would otherwise start over without a word
        if state:
            self.stream.load_state_dict(state)
        self._texts = iter(self.stream)

    def state_dict(self) -> dict:
        pieces = {name: [ids.tolist() for ids in getattr(self, name)] for name in ("buffer", "rests")}
        return pieces | {"place": self.place, "counts": [self.tokens, self.cropped, self.continued]}

    def load_state_dict(self, state: dict) -> None:
        if self._ahead:
            self._ahead.exception()  # wait for it, and forget it
        self._ahead = self._texts = None
        for name in ("buffer", "rests"):
            setattr(self, name, [np.array(ids, dtype=np.int32) for ids in state[name]])
        self.place = state["place"]
        self.tokens, self.cropped, self.continued = state["counts"]


def furthest(states: list[dict]) -> dict:
    """Where to go on with another number of processes: behind the last document that any had read.

    What waited in their buffers is skipped; nothing is read twice.
    """
    return max(states, key=lambda s: (s["place"]["epoch"], s["place"]["position"])) | {"buffer": [], "rests": []}


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
