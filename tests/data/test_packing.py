"""The packed loader: full rows that begin with a document, and the same batches after stopping anywhere."""

import json
import random
from collections import Counter
from functools import partial
from itertools import combinations, islice, pairwise

import datasets
import numpy as np
import pytest
from datasets import Dataset, IterableDataset, load_dataset

from nanohf.data import packing as loader_module
from nanohf.data import toy_world as world
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
        waiting = [piece.ids.tolist() for piece in loader.buffer + loader.rests]
        return {(token - 1) // SPAN for row in [*rows, *waiting] for token in row if token}

    first, second, both = read(0, 2), read(1, 2), read(0, 1)
    assert not first & second
    assert first | second == both
    assert len(both) == (270 if "filtered" in name else 300)


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


@pytest.mark.parametrize("longest", [12, 60, 400, 990])
@pytest.mark.parametrize(("length", "buffer_size"), [(32, 1), (40, 8), (200, 16)])
def test_every_token_is_given_out_once_before_an_epoch_ends(longest, length, buffer_size):
    """Whatever the documents' lengths; only one row holds text of two epochs."""
    sizes = lengths(100, longest)
    loader = PackedLoader(stream(sizes), encode, 1, length, buffer_size=buffer_size)
    rows = []
    while loader.place["epoch"] == 0:
        rows += run(loader, 1)
    counts = seen(rows)
    every = {number * SPAN + 1 + i for number, size in enumerate(sizes) for i in range(size)}
    assert counts.keys() == every
    assert sum(counts.values()) - len(every) < length, "at most a row of the next epoch"


def test_two_epochs_are_two_times_everything():
    sizes = lengths(60, 300)
    loader = PackedLoader(stream(sizes), encode, 1, 64)
    rows = []
    while loader.place["epoch"] < 2:
        rows += run(loader, 1)
    twice = [token for token, count in seen(rows).items() if count == 2]
    assert len(twice) > sum(sizes) - 64
    assert loader.epochs() is None or loader.epochs() >= 2


def test_shares_are_those_of_the_rows():
    loader = PackedLoader(stream(lengths(200, 400)), encode, 2, 64)
    rows = run(loader, 100)
    starts = {number * SPAN + 1 for number in range(200)}
    aligned = sum(row[1] in starts for row in rows)
    rests = sum(1 + len(part) for row in rows for part in pieces(row) if part and part[0] not in starts)
    assert loader.shares()["aligned"] == aligned / len(rows)
    assert loader.shares()["continued"] == pytest.approx(rests / (64 * len(rows)), abs=0.02)  # a BOS may close a row


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_with_another_number_of_processes_nothing_is_lost_or_read_twice(before, after):
    def loader(rank: int, world_size: int, state: dict | None = None) -> PackedLoader:
        new = PackedLoader(stream([30] * 3000), encode, 2, 31, rank, world_size, buffer_size=8)
        if state:
            new.load_state_dict(json.loads(json.dumps(state)))
        return new

    def numbers(rows: list[list[int]]) -> list[int]:
        return [row[1] // SPAN for row in rows]

    first = [loader(rank, before) for rank in range(before)]
    old = [number for rank, reader in enumerate(first) for number in numbers(run(reader, 40 + 60 * rank))]
    states = [json.loads(json.dumps(reader.state_dict())) for reader in first]
    new = []
    for rank in range(after):
        reader = loader(rank, after, dealt(states, rank, after))
        while reader.place["epoch"] == 0 and not (reader.place["ended"] and not reader.buffer):
            new += numbers(run(reader, 1))
    assert len(set(old + new)) == 3000, "nothing is lost"
    assert len(old + new) - 3000 <= 2 * after, "nothing is read twice but in the row that opens the next epoch"


def test_a_folder_of_books_is_trained_to_its_end(tmp_path):
    """24 books of 40,000 characters: in as many rows as the text fills, at least 99% of its tokens are given out."""
    rng = random.Random(0)
    starts, ends = "ba de fi go lu ma ne pi ro su", "ban der fin gor lum mas net"
    words = [start + end for start in starts.split() for end in ends.split()]
    for number in range(24):
        paragraphs = (" ".join(rng.choice(words) for _ in range(80)) + "." for _ in range(85))
        (tmp_path / f"book{number:02d}.txt").write_text("\n\n".join(paragraphs))
    tokenizer = train_tokenizer((path.read_text() for path in sorted(tmp_path.iterdir())), 384)
    encoded = partial(encode_documents, tokenizer)
    loader = PackedLoader(text_stream(str(tmp_path), "train"), encoded, rows=4, length=256)
    whole = sum(len(ids) for row in text_stream(str(tmp_path), "train") for ids in encoded([row["text"]]))
    assert abs(loader.epoch_tokens() - whole) < 0.1 * whole, "the estimate at the start"
    given = set()
    for _ in range(whole // (4 * 256)):
        given |= {tuple(row) for row in next(loader).tolist()}
    assert len(given) * 256 >= 0.99 * whole
    assert 0.9 < loader.epochs() <= 1


@pytest.mark.parametrize(("vocab_size", "length"), [(1024, 256), (2048, 512)])
def test_the_toy_world_fits_rows_well(vocab_size, length):
    """Most rows begin with a document, and few tokens stand apart from its beginning."""
    texts = [row["text"] for row in world.rows("documents", "train", 3000)]
    tokenizer = train_tokenizer(texts, vocab_size)
    loader = PackedLoader(text_stream("builtin", "train"), partial(encode_documents, tokenizer), 8, length)
    run(loader, 40)
    assert loader.shares()["aligned"] > 0.95
    assert loader.shares()["continued"] < 0.15
