"""The packed loader: full rows, nothing lost, and the same batches after stopping anywhere."""

import json
import random
from collections import Counter
from itertools import combinations, islice, pairwise

import datasets
import numpy as np
import pytest
from datasets import Dataset, IterableDataset, load_dataset

from nanohf.data import packing as loader_module
from nanohf.data.packing import PackedLoader, closing, dealt
from nanohf.data.sources import text_stream
from nanohf.tokenizer.train_bpe import encode_documents, train_tokenizer

BOS = 0
SPAN = 1000  # document number n has the tokens n·SPAN + 1, n·SPAN + 2, ...: each says where it belongs


def lengths(documents: int, longest: int = 60, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.choice((rng.randint(1, 8), rng.randint(1, longest))) for _ in range(documents)]


def documents(sizes: tuple[int, ...]):
    for number, size in enumerate(sizes):
        yield {"text": f"{number} {size}"}


def encode(texts: list[str]) -> list[list[int]]:
    pairs = [map(int, text.split()) for text in texts]
    return [[BOS, *range(number * SPAN + 1, number * SPAN + 1 + size)] for number, size in pairs]


def stream(sizes: list[int]) -> IterableDataset:
    return IterableDataset.from_generator(documents, gen_kwargs={"sizes": tuple(sizes)})  # a list would mean shards


def pieces(row: list[int]) -> list[list[int]]:
    """What stands behind each BOS of a row."""
    starts = [i for i, token in enumerate(row) if token == BOS] + [len(row)]
    return [row[a + 1 : b] for a, b in pairwise(starts)]


def run(loader: PackedLoader, batches: int) -> list[list[int]]:
    return [row for batch in islice(loader, batches) for row in batch.tolist()]


@pytest.mark.parametrize(("rows", "length", "buffer_size"), [(1, 16, 1), (3, 32, 8), (2, 7, 64), (4, 100, 5)])
def test_rows_are_full_and_start_with_bos(rows, length, buffer_size):
    loader = PackedLoader(stream(lengths(100)), encode, rows, length, buffer_size=buffer_size)
    for batch in islice(loader, 40):
        assert batch.shape == (rows, length)
        assert (batch[:, 0] == BOS).all()
    assert loader.tokens == 40 * rows * length


def seen(rows: list[list[int]]) -> Counter:
    return Counter(t for row in rows for t in row if t)


SHORT = lengths(100)
LONG = [5000, 3, 700, 0, 70, 2500, 31, 32, 33, 1200] * 3  # rows' worths, and everything near a row


@pytest.mark.parametrize("sizes", [SHORT, LONG, [4999] * 5], ids=["short", "long", "books"])
@pytest.mark.parametrize(("length", "buffer_size"), [(32, 1), (40, 8), (200, 16)])
def test_every_token_is_given_out_before_an_epoch_ends(sizes, length, buffer_size):
    """When epoch n + 1 begins, all tokens were given out n times, but for the beginning of the next in the last row."""
    loader = PackedLoader(stream(sizes), spaced, 1, length, buffer_size=buffer_size)
    whole, given = seen(spaced([f"{i} {size}" for i, size in enumerate(sizes)])), Counter()
    for epoch in (1, 2, 3):
        while loader.place["epoch"] < epoch:
            given += seen(run(loader, 1))
        assert given.keys() == whole.keys()
        assert min(given.values()) >= epoch
        ahead = sum(count - epoch for count in given.values())
        assert ahead < length


def spaced(texts: list[str]) -> list[list[int]]:
    """As encode, for documents of more than SPAN tokens."""
    pairs = [map(int, text.split()) for text in texts]
    return [[BOS, *range(number * 10**4 + 1, number * 10**4 + 1 + size)] for number, size in pairs]


@pytest.mark.parametrize(("length", "buffer_size"), [(32, 1), (40, 8), (200, 16)])
def test_rows_begin_with_documents_where_these_are_shorter_than_rows_on_average(length, buffer_size):
    """Short documents are packed as before there were long ones: rests follow inside rows only."""
    loader = PackedLoader(stream(lengths(5000)), encode, 2, length, buffer_size=buffer_size)
    rows = run(loader, 150)
    assert loader.place["epoch"] == 0
    assert all(row[0] == BOS and row[1] % SPAN in (0, 1) for row in rows)  # an empty document is its BOS alone
    assert loader.shares()["aligned"] == 1


def test_the_shares_are_counted():
    """Documents of 100 tokens in rows of 33: one row of four begins with one, once rests begin rows too."""
    loader = PackedLoader(stream([99] * 500), encode, 4, 33, buffer_size=8)
    rows = run(loader, 400)
    begin = sum(row[1] % SPAN == 1 for row in rows)
    assert loader.aligned == begin
    assert loader.shares()["aligned"] == begin / 1600 == pytest.approx(0.32, abs=0.03)
    assert loader.shares()["continued"] == pytest.approx(1 - begin / 1600, abs=0.03)

    loader = PackedLoader(stream([49, 19] * 50), encode, 2, 40, buffer_size=8)  # 35 a document: all rests find a place
    rows = run(loader, 30)
    cut = [p for row in rows for p in pieces(row) if not p or p[0] % SPAN != 1]  # a BOS alone may be of either kind
    assert 0 < sum(len(p) + 1 for p in cut if p) <= loader.continued <= sum(len(p) + 1 for p in cut)
    assert loader.shares()["aligned"] == 1


def test_epochs_are_estimated_and_then_counted():
    class Sized:
        """A stream that knows its bytes of text: "12 34" is 5 of them, 4 of a one-digit number."""

        def __init__(self, sizes):
            self.real = stream(sizes)
            for name in ("set_epoch", "state_dict", "load_state_dict", "__iter__"):
                setattr(self, name, getattr(self.real, name))

        def __iter__(self):
            return iter(self.real)

        def text_bytes(self):
            return sum(len(f"{i} 30") for i in range(1000))

    loader = PackedLoader(Sized([30] * 1000), encode, 1, 31, buffer_size=8)
    assert loader.epoch_tokens() == pytest.approx(31_000, rel=0.3)
    run(loader, 500)
    assert loader.epochs() == pytest.approx(0.5, rel=0.2)
    run(loader, 1000)
    assert loader.epoch_tokens() == 31_000
    assert loader.epochs() == pytest.approx(1.5, abs=0.001)
    endless = PackedLoader(stream([30] * 1000), encode, 1, 31, buffer_size=8)
    assert endless.epoch_tokens() is None
    assert endless.epochs() is None


@pytest.mark.parametrize("seed", range(5))
def test_closing_finds_the_best_pair(seed):
    rng = random.Random(seed)
    for _ in range(200):
        sizes = [rng.randint(1, 60) for _ in range(rng.randint(2, 8))]
        room = rng.randint(1, 100)
        sums = [sum(pair) for n in (1, 2) for pair in combinations(sizes, n)]
        best = min((s - room for s in sums if s >= room), default=None)
        chosen, over = closing(np.array(sizes), room)
        assert over == (room if best is None else best)
        assert sum(sizes[i] for i in chosen) == (0 if best is None else room + best)
        assert len(set(chosen)) == len(chosen)


def test_pieces_are_runs_of_one_document():
    loader = PackedLoader(stream(lengths(100)), encode, 2, 24, buffer_size=8)
    for piece in (piece for row in run(loader, 200) for piece in pieces(row)):
        assert piece == list(range(piece[0], piece[0] + len(piece))) if piece else True
        assert len({(token - 1) // SPAN for token in piece}) <= 1


def test_documents_that_fill_rows_are_not_cut():
    loader = PackedLoader(stream([9, 5] * 50), encode, 2, 16, buffer_size=8)
    rows = run(loader, 20)
    assert loader.continued == 0
    assert all(sorted(map(len, pieces(row))) in ([5, 9], [9, 5]) for row in rows)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict:
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # load_dataset would call the Hub to be counted
    folder = tmp_path_factory.mktemp("texts")
    table = Dataset.from_list(list(documents(lengths(300))))
    table.to_parquet(folder / "texts.parquet", batch_size=50)
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))

    def file(kind: str, name: str) -> IterableDataset:
        return load_dataset(kind, data_files=str(folder / name), split="train", streaming=True)

    def filtered(texts: IterableDataset) -> IterableDataset:
        return texts.filter(lambda _, i: i % 10 != 9, with_indices=True).select_columns("text")

    return {
        "generator": lambda: stream(lengths(300)),
        "filtered generator": lambda: filtered(stream(lengths(300))),
        "parquet": lambda: file("parquet", "texts.parquet"),
        "filtered parquet": lambda: filtered(file("parquet", "texts.parquet")),
        "filtered jsonl": lambda: filtered(file("json", "texts.jsonl")),
    }


NAMES = ("generator", "filtered generator", "parquet", "filtered parquet", "filtered jsonl")


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_resuming_gives_the_same_batches(sources, name, rank, world_size):
    def loader(state: str | None = None) -> PackedLoader:
        new = PackedLoader(sources[name](), encode, 2, 40, rank, world_size, buffer_size=8)
        if state:
            new.load_state_dict(json.loads(state))
        return new

    uninterrupted, states, batches = loader(), [], []
    for _ in range(150):
        states.append(json.dumps(uninterrupted.state_dict()))
        batches.append(next(uninterrupted).tolist())
    assert uninterrupted.place["epoch"] >= 1
    for stop in (*range(0, 4), *range(5, 148, 13)):
        expected = [row for batch in batches[stop : stop + 30] for row in batch]
        assert run(loader(states[stop]), min(30, 150 - stop)) == expected, stop
        # Stopped again before it read another document: the state must not start over.
        again = json.dumps(loader(states[stop]).state_dict())
        assert run(loader(again), min(30, 150 - stop)) == expected, stop
    resumed = loader(states[60])
    run(resumed, 20)
    assert run(loader(json.dumps(resumed.state_dict())), 30) == [row for batch in batches[80:110] for row in batch]


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_read_everything_once(sources, name):
    def read(rank: int, world_size: int) -> set[int]:
        loader = PackedLoader(sources[name](), encode, 2, 40, rank, world_size, buffer_size=4)
        rows = []
        while loader.place["epoch"] == 0:  # and on into the next, where the rank reads the same documents again
            rows += run(loader, 1)
        return {(token - 1) // SPAN for row in rows for token in row if token}

    first, second, both = read(0, 2), read(1, 2), read(0, 1)
    assert not first & second
    assert first | second == both
    assert len(both) == (270 if "filtered" in name else 300)


def rank_of(sizes: list[int], rank: int, world_size: int, state: dict | None = None) -> PackedLoader:
    new = PackedLoader(stream(sizes), encode, 2, 31, rank, world_size, buffer_size=8)
    if state:
        new.load_state_dict(json.loads(json.dumps(state)))
    return new


@pytest.mark.parametrize("worlds", [(2, 1), (1, 2), (2, 3), (3, 2, 4)])
def test_with_another_number_of_ranks_all_text_is_given_out_once(worlds):
    """Ranks stopped at different places, once or twice: until the epoch ends, every token is given out exactly once."""
    sizes = [30, 7, 100] * 700
    given, states = Counter(), None
    for turn, world_size in enumerate(worlds):
        ranks = [rank_of(sizes, r, world_size, states and dealt(states, r, world_size)) for r in range(world_size)]
        for rank, loader in enumerate(ranks):
            if turn < len(worlds) - 1:
                given += seen(run(loader, 20 + 50 * rank))
            else:
                rows = run_to_the_end_of_the_epoch(loader)
                given += seen(rows)
        states = [loader.state_dict() for loader in ranks]
    whole = seen(encode([f"{i} {size}" for i, size in enumerate(sizes)]))
    assert whole.keys() == given.keys()
    twice = sum(count - 1 for count in given.values())
    assert twice <= 2 * 31 * worlds[-1], "but for the beginning of the next epoch in each rank's last batch"


def run_to_the_end_of_the_epoch(loader: PackedLoader) -> list[list[int]]:
    rows = []
    while loader.place["epoch"] == 0:
        rows += run(loader, 1)
    return rows


def test_a_stream_that_comes_back(monkeypatch):
    pauses, failures = [], iter([True, True] + [False] * 400 + [True] + [False] * 10**6)
    monkeypatch.setattr(loader_module.time, "sleep", pauses.append)

    class Flaky:
        """A real stream whose connection breaks: at once, twice, and again in the midst of it."""

        def __init__(self):
            self.real = stream(lengths(300))
            for name in ("set_epoch", "state_dict", "load_state_dict"):
                setattr(self, name, getattr(self.real, name))

        def __iter__(self):
            for row in self.real:
                if next(failures):
                    raise TimeoutError("read timed out")
                yield row

    flaky = PackedLoader(Flaky(), encode, 2, 40, buffer_size=8)
    assert run(flaky, 150) == run(PackedLoader(stream(lengths(300)), encode, 2, 40, buffer_size=8), 150)
    assert pauses == [1, 2, 1]


def test_a_stream_that_does_not_come_back(monkeypatch):
    pauses = []
    monkeypatch.setattr(loader_module.time, "sleep", pauses.append)

    def dead():
        yield from documents([5] * 200)
        raise ConnectionResetError("reset by peer")

    loader = PackedLoader(IterableDataset.from_generator(dead), encode, 1, 6, buffer_size=8)
    with pytest.raises(ConnectionError, match=r"6 times in a row behind document 128 of epoch 0 .*reset by peer"):
        run(loader, 300)
    assert pauses == [1, 2, 4, 8, 16]


def test_a_parquet_file_whose_pages_are_damaged(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(loader_module.time, "sleep", lambda seconds: None)
    Dataset.from_list(list(documents([5] * 5000))).to_parquet(tmp_path / "texts.parquet")
    data = bytearray((tmp_path / "texts.parquet").read_bytes())
    data[len(data) // 4 : len(data) // 2] = random.Random(0).randbytes(len(data) // 2 - len(data) // 4)
    (tmp_path / "texts.parquet").write_bytes(data)
    texts = load_dataset("parquet", data_files=str(tmp_path / "texts.parquet"), split="train", streaming=True)
    with pytest.raises(ConnectionError, match="If a file is damaged, fetch it again or remove it"):
        run(PackedLoader(texts, encode, 2, 40), 1000)


def test_empty_documents_are_skipped_and_counted(tmp_path):
    rows = [row for document in documents([5] * 50) for row in ({"text": ""}, document, {"text": None})]
    Dataset.from_list(rows).to_parquet(tmp_path / "texts.parquet")
    texts = load_dataset("parquet", data_files=str(tmp_path / "texts.parquet"), split="train", streaming=True)
    loader = PackedLoader(texts, encode, 2, 18, buffer_size=8)
    rows = run(loader, 10)
    assert all([len(piece) for piece in pieces(row)] == [5, 5, 5] for row in rows)
    assert abs(loader.place["empty"] - 2 * loader.place["documents"]) <= 2


@pytest.mark.parametrize("texts", [[], [""] * 20, [None, "", None]])
def test_a_source_without_text(texts):
    def rows():
        yield from ({"text": text} for text in texts)

    with pytest.raises(ValueError, match="has no text"):
        next(PackedLoader(IterableDataset.from_generator(rows), encode, 2, 16))


def test_a_rank_without_documents_says_so():
    with pytest.raises(ValueError, match="has no text"):
        next(PackedLoader(stream([5]), encode, 1, 16, rank=1, world_size=2))


def test_one_short_document_is_read_again_and_again():
    (row,) = run(PackedLoader(stream([3]), encode, 1, 16, buffer_size=2), 1)
    assert row == [BOS, 1, 2, 3] * 4


@pytest.mark.parametrize(("vocab_size", "length"), [(1024, 256), (2048, 512)])
def test_all_of_the_toy_world_is_used(vocab_size, length):
    """At the demo's sizes: few tokens behind a cut, and every row begins with a document."""
    texts = text_stream("builtin", "train")
    tok = train_tokenizer((row["text"] for row in islice(texts, 500)), vocab_size)
    begin: set[tuple] = set()

    def encode(texts: list[str]) -> list[list[int]]:
        ids = encode_documents(tok, texts)
        begin.update(tuple(i[:9]) for i in ids)
        return ids

    loader = PackedLoader(texts, encode, 8, length)
    rows = run(loader, 40)
    assert loader.shares()["continued"] < 0.12
    assert loader.shares()["aligned"] == 1
    assert all(tuple(row[:9]) in begin for row in rows)
