"""Documents to rows for pretraining: tokenised in batches, packed best-fit, split by rank, resumable to the token.

Every row starts with BOS and is full: nothing is padded and no token is lost. Where no document in the buffer fits the
rest of a row, the longest is cut in two and the part without a beginning gets a BOS of its own.
"""

from bisect import bisect_right, insort
from collections.abc import Callable

import torch
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node


class PackedLoader:
    """Endless batches (rows, length) of token ids. `state_dict` / `load_state_dict` go on exactly where it stopped.

    Args:
        stream: {"text": str} documents, with state_dict; epochs follow each other without end.
        encode: texts to token ids, each starting with BOS.
        rank, world_size: which share of the documents this process reads.
        buffer_size: documents to choose from when a row is filled; more waste less and hold more memory.

    Raises:
        ValueError: the stream has no text.
    """

    def __init__(
        self,
        stream: IterableDataset,
        encode: Callable[[list[str]], list[list[int]]],
        rows: int,
        length: int,
        rank: int = 0,
        world_size: int = 1,
        buffer_size: int = 256,
    ):
        self.stream = split_dataset_by_node(stream, rank, world_size) if world_size > 1 else stream
        self.encode = encode
        self.rows, self.length = rows, length
        self.buffer_size = buffer_size
        self.buffer: list[list[int]] = []  # token ids of pending pieces, by length
        self.epoch = 0
        self.documents = self.tokens = self.cut = 0
        self._texts = None
        self._place = None  # the stream's state to go on from, until it is read again

    def __iter__(self):
        return self

    def __next__(self) -> torch.Tensor:
        batch = torch.tensor([self._row() for _ in range(self.rows)])
        self.tokens += batch.numel()
        return batch

    def _row(self) -> list[int]:
        row: list[int] = []
        while room := self.length - len(row):
            if len(self.buffer) < self.buffer_size:
                self._refill()
            fits = bisect_right(self.buffer, room, key=len)
            piece = self.buffer.pop(fits - 1 if fits else -1)
            if len(piece) > room:
                piece, rest = cut(piece, room)
                insort(self.buffer, rest, key=len)
                self.cut += 1
            row += piece
        return row

    def _refill(self) -> None:
        texts = []
        while len(texts) < self.buffer_size:
            texts += [text] if (text := self._next_text()) else []
        for ids in self.encode(texts):
            insort(self.buffer, ids, key=len)

    def _next_text(self) -> str:
        """The next document of this epoch or, at its end, the first of the next."""
        if self._texts is None:
            self._texts = iter(self.stream)
        if (row := next(self._texts, None)) is None:
            if self.documents == 0:
                raise ValueError("the text source has no text: an epoch passed without a document")
            self.epoch += 1
            self.stream.set_epoch(self.epoch)
            self._texts = iter(self.stream)
            return ""
        self.documents += bool(row["text"])
        return row["text"]

    def state_dict(self) -> dict:
        return {
            "epoch": self.epoch,
            "stream": self.stream.state_dict() if self._texts else self._place,
            "buffer": [list(ids) for ids in self.buffer],
            "counts": [self.documents, self.tokens, self.cut],
        }

    def load_state_dict(self, state: dict) -> None:
        self.epoch = state["epoch"]
        self.stream.set_epoch(self.epoch)  # before load_state_dict, which would otherwise start over without a word
        self._place = state["stream"]
        self.stream.load_state_dict(self._place)
        self.buffer = [list(ids) for ids in state["buffer"]]
        self.documents, self.tokens, self.cut = state["counts"]
        self._texts = None


def cut(piece: list[int], room: int) -> tuple[list[int], list[int]]:
    """`room` tokens of a piece, and the rest. The shorter part is the one that loses its beginning.

    It also bounds the copying, so that a book costs no more a row than a page. piece[0] is BOS.
    """
    if len(piece) < 2 * room:
        return piece[:room], [piece[0], *piece[room:]]
    at = len(piece) - room + 1
    end = [piece[0], *piece[at:]]
    del piece[at:]
    return end, piece
