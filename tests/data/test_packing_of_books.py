"""Documents much longer than a row: read to their end, a few pages at a time, and resumed inside."""

import json
import random
from collections import Counter
from functools import partial

from datasets import Dataset, load_dataset

from nanohf.data.packing import CHUNK_CHARACTERS, WAITING, PackedLoader
from nanohf.data.pieces import PIECE
from nanohf.data.sources import text_stream
from nanohf.tokenizer.train_bpe import encode_documents, train_tokenizer

BOS = 0


def run(loader: PackedLoader, batches: int) -> list[list[int]]:
    return [row for _ in range(batches) for row in next(loader).tolist()]


def bytewise(texts: list[str]) -> list[list[int]]:
    assert sum(map(len, texts)) <= CHUNK_CHARACTERS + PIECE, "so much is tokenised at a time"
    return [[BOS, *text.encode()] for text in texts]


def test_a_book_is_read_to_its_end_a_few_pages_at_a_time(tmp_path):
    book = [{"text": "x" * 10**7}] + [{"text": "y" * 700}] * 2000
    Dataset.from_list(book).to_parquet(tmp_path / "texts.parquet")
    texts = load_dataset("parquet", data_files=str(tmp_path / "texts.parquet"), split="train", streaming=True)
    loader = PackedLoader(texts, bytewise, 8, 1024)
    counts = Counter()
    while loader.place["epoch"] == 0:
        counts.update(next(loader).flatten().tolist())
        waiting = sum(len(piece.ids) for piece in loader.buffer + loader.rests)
        assert waiting < (512 + WAITING + 1) * 1024 + CHUNK_CHARACTERS + 2 * PIECE
    assert 10**7 <= counts[ord("x")] <= 10**7 + 8 * 1024
    assert counts[ord("y")] >= 2000 * 700 - 8 * 1024


def test_inside_a_book_it_resumes_exactly_with_a_small_state(tmp_path):
    rng = random.Random(0)
    book = [{"text": " ".join(str(rng.random()) for _ in range(200_000))}, {"text": "y" * 700}]
    Dataset.from_list(book).to_parquet(tmp_path / "texts.parquet")

    def loader(state: str = "") -> PackedLoader:
        texts = load_dataset("parquet", data_files=str(tmp_path / "texts.parquet"), split="train", streaming=True)
        new = PackedLoader(texts, bytewise, 8, 1024)
        if state:
            new.load_state_dict(json.loads(state))
        return new

    whole = loader()
    run(whole, 300)
    state = json.dumps(whole.state_dict())
    assert len(state) < 10 * len(book[0]["text"]) // 20
    expected = run(whole, 300)
    assert whole.place["epoch"] >= 1
    assert run(loader(state), 300) == expected


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
