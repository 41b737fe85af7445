"""The packed loader: full rows, nothing lost, and the same batches after stopping anywhere."""

import json
import random
import time
from collections import Counter
from itertools import islice, pairwise

import datasets
import pytest
from datasets import Dataset, IterableDataset, load_dataset

from nanohf.data.loader import PackedLoader, cut
from nanohf.data.sources import text_stream
from nanohf.tokenizer.train import encode_documents, train_tokenizer

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


@pytest.mark.parametrize(("length", "buffer_size"), [(16, 1), (32, 8), (200, 16)])
def test_nothing_is_lost_and_nothing_is_made_up(length, buffer_size):
    sizes = lengths(100)
    loader = PackedLoader(stream(sizes), encode, 2, length, buffer_size=buffer_size)
    rows = []
    while loader.epoch < 3:
        rows += run(loader, 1)
    waiting = loader.state_dict()["buffer"]
    read = [ids for i in range(loader.documents) for ids in encode([f"{i % 100} {sizes[i % 100]}"])]

    assert Counter(t for part in (*rows, *waiting) for t in part if t) == Counter(t for ids in read for t in ids if t)
    starts = sum(part.count(BOS) for part in (*rows, *waiting))
    assert starts == len(read) + loader.cut, "one BOS a document and one a cut"


def test_pieces_are_runs_of_one_document():
    loader = PackedLoader(stream(lengths(100)), encode, 2, 24, buffer_size=8)
    for piece in (piece for row in run(loader, 200) for piece in pieces(row)):
        assert piece == list(range(piece[0], piece[0] + len(piece))) if piece else True
        assert len({(token - 1) // SPAN for token in piece}) <= 1


def test_documents_are_cut_only_where_none_fits():
    """Of documents that fill a row two by two, none is cut."""
    loader = PackedLoader(stream([9, 5] * 50), encode, 2, 16, buffer_size=8)
    rows = run(loader, 20)
    assert loader.cut == 0
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
    assert uninterrupted.epoch >= 1
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
        while loader.epoch == 0:  # and on into the next, where the rank reads the same documents again
            rows += run(loader, 1)
        seen = [*rows, *loader.state_dict()["buffer"]]
        return {(token - 1) // SPAN for row in seen for token in row if token}

    first, second, both = read(0, 2), read(1, 2), read(0, 1)
    assert not first & second
    assert first | second == both
    assert len(both) == (270 if "filtered" in name else 300)


def test_empty_documents_are_skipped():
    def with_gaps():
        for row in documents([5] * 50):
            yield {"text": ""}
            yield row
            yield {"text": None}

    loader = PackedLoader(IterableDataset.from_generator(with_gaps), encode, 2, 18, buffer_size=8)
    rows = run(loader, 10)
    assert all([len(piece) for piece in pieces(row)] == [5, 5, 5] for row in rows)
    assert loader.documents * 5 == sum(len(part) - part.count(BOS) for part in (*rows, *loader.state_dict()["buffer"]))


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


@pytest.mark.parametrize("room", range(1, 12))
@pytest.mark.parametrize("size", range(2, 14))
def test_cut(size, room):
    if room < size:
        piece = list(range(size))
        first, rest = cut(list(piece), room)
        assert len(first) == room
        assert first[0] == rest[0] == BOS
        assert sorted(first[1:] + rest[1:]) == piece[1:]
        torn = [part for part in (first, rest) if part[1:2] != [1]]
        assert min(map(len, (first, rest))) in map(len, torn), "the shorter part is the one without a beginning"


@pytest.mark.parametrize("megabytes", [1, 10])
def test_a_book_does_not_stop_the_loader(megabytes):
    def rows():
        yield {"text": "x" * megabytes * 10**6}
        for _ in range(2000):
            yield {"text": "y" * 700}

    def bytewise(texts: list[str]) -> list[list[int]]:
        return [[BOS, *text.encode()] for text in texts]

    loader = PackedLoader(IterableDataset.from_generator(rows), bytewise, 8, 512)
    started = time.perf_counter()
    batches = list(islice(loader, 200))
    assert time.perf_counter() - started < 8, "the time for a row must not grow with the longest document"
    assert all((batch[:, 0] == BOS).all() for batch in batches)
    waiting = sum(ids.count(ord("x")) for ids in loader.state_dict()["buffer"])
    emitted = sum((batch == ord("x")).sum().item() for batch in batches)
    assert emitted > 0
    assert (emitted + waiting) % (megabytes * 10**6) == 0


def test_few_documents_of_the_toy_world_are_cut(record_property):
    texts = text_stream("builtin", "train")
    tok = train_tokenizer((row["text"] for row in islice(texts, 500)), 2048)
    begin: set[tuple] = set()  # how documents begin

    def encode(texts: list[str]) -> list[list[int]]:
        ids = encode_documents(tok, texts)
        begin.update(tuple(i[1:9]) for i in ids)
        return ids

    loader = PackedLoader(texts, encode, 8, 512)
    rows = run(loader, 60)
    cut_off = [piece for row in rows for piece in pieces(row) if tuple(piece[:8]) not in begin]
    torn = sum(map(len, cut_off)) / sum(map(len, rows))
    figures = f"{loader.cut / loader.documents:.1%} of documents cut, {torn:.2%} of tokens apart from their beginning"
    record_property("cut", figures)
    print("\n" + figures)
    assert torn < 0.05
