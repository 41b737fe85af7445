"""Sources: folders of every format, their two splits, and what is said of those that cannot work."""

import csv
import json
import os
import random
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from text_folders import both, read, texts, write

from nanohf.data import text_readers
from nanohf.data import text_stream as text_stream_module
from nanohf.data import toy_world as world
from nanohf.data.hub_errors import NotChecked
from nanohf.data.pieces import PIECE
from nanohf.data.sources import builtin_examples, check_text, streamed, text_stream
from nanohf.data.tables import open_table
from nanohf.data.text_readers import CHUNK_BYTES
from nanohf.data.text_stream import HubText, TextStream
from nanohf.errors import RecipeError

REAL = os.environ.get("NANOHF_TEST_DATA")
pytestmark = pytest.mark.usefixtures("offline")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "jsonl.gz", "csv"])
def test_a_share_of_all_files_is_held_out(tmp_path, suffix):
    for name in "abc":
        write(tmp_path / f"{name}.{suffix}", [f"{name} {text}" for text in texts(0, 2000)])
    assert len(both(tmp_path)) == 6000
    held_out = read(tmp_path, "validation")
    assert 30 <= len(held_out) <= 90
    assert {text[0] for text in held_out} == set("abc")
    assert held_out == read(tmp_path, "validation", seed=5), "the same for every seed"
    check_text(str(tmp_path), column="text")


@pytest.mark.parametrize("documents", [2, 3, 50, 99])
def test_of_few_documents_one_is_held_out(tmp_path, documents):
    write(tmp_path / "only.jsonl", texts(0, documents))
    assert 1 <= len(read(tmp_path, "validation")) <= 4
    assert both(tmp_path) == sorted(texts(0, documents))


def test_equal_documents_are_on_one_side(tmp_path):
    write(tmp_path / "a.jsonl", texts(0, 500))
    write(tmp_path / "b.jsonl", texts(0, 500))
    assert both(tmp_path) == sorted(2 * texts(0, 500))


BOOK = "\n\n".join(
    f"Chapter {i}. " + "It was a dark and stormy night; the rain fell in torrents. " * 20 for i in range(400)
)


def test_books_are_read_in_pieces_that_add_up_to_them(tmp_path):
    """Of 24 books of half a megabyte, each is trained on, and pieces of several are held out."""
    for i in range(24):
        (tmp_path / f"book{i:02}.txt").write_text(BOOK.replace("Chapter", f"Chapter {i}."))
    rows = [row for part in ("train", "validation") for row in text_stream(str(tmp_path), part)]
    assert sum(row["begins"] for row in rows) == 24
    assert max(len(row["text"]) for row in rows) <= PIECE
    assert sum(len(row["text"]) for row in rows) == sum(len(f.read_text()) for f in tmp_path.iterdir())
    assert sorted(line for row in rows for line in row["text"].split("\n\n") if line) == sorted(
        line for file in tmp_path.iterdir() for line in file.read_text().split("\n\n")
    ), "cut between paragraphs only"
    held_out = {text.split()[1] for text in read(tmp_path, "validation")}
    assert 2 <= len(held_out) <= 20


def test_one_short_book_is_enough(tmp_path):
    (tmp_path / "book.txt").write_text("\n\n".join(f"paragraph {i}\nof the book" for i in range(300)))
    train, validation = (read(tmp_path, part) for part in ("train", "validation"))
    assert sum(map(len, train + validation)) == len((tmp_path / "book.txt").read_text())
    assert 0 < sum(map(len, validation)) < 0.1 * sum(map(len, train))


def test_separators_part_the_documents_of_a_text_file(tmp_path):
    stories = [f"Story {i}.\n\nThe end of it." for i in range(200)]
    (tmp_path / "inline.txt").write_text("<|endoftext|>".join(stories[:100]) + "<|endoftext|>\n")
    (tmp_path / "lines.txt").write_text("\r\n<|endoftext|>\r\n".join(stories[100:]), newline="")
    assert sorted(map(str.strip, both(tmp_path))) == sorted(stories)
    assert all(row["begins"] for row in text_stream(str(tmp_path), "train"))


def test_formats_mix(tmp_path):
    for i, name in enumerate(("a.parquet", "b.jsonl", "c.jsonl.gz", "d.csv")):
        write(tmp_path / name, texts(100 * i, 100 * i + 100))
    (tmp_path / "e.json").write_text(json.dumps([{"text": text} for text in texts(400, 500)], indent=2))
    (tmp_path / "f.TXT").write_text("<|endoftext|>".join(texts(500, 600)))
    assert both(tmp_path) == sorted(texts(0, 600))


def test_json_arrays_of_several_megabytes(tmp_path):
    long = [f"{text}: {'[{,}]' * 400}" for text in texts(0, 2000)]
    (tmp_path / "a.json").write_text("\n " + json.dumps([{"id": i, "text": text} for i, text in enumerate(long)]))
    assert both(tmp_path) == sorted(long)


def test_lines_are_read_once_wherever_a_file_is_parted(tmp_path):
    """Lines of 0.1 to 3 MB, of which some begin exactly where a part of the file does."""
    lengths = [100_000, CHUNK_BYTES - 100_000 - 2 * 13, 3_000_000, 1, 2_500_000, 40]
    long = [f"{i}{'x' * (n - 1)}" for i, n in enumerate(lengths)] + texts(0, 50)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in long))
    found = [row["text"] for part in ("train", "validation") for row in text_stream(str(tmp_path), part)]
    assert sum(map(len, found)) == sum(map(len, long))
    assert sorted(t for t in found if t in long) == sorted(t for t in long if len(t) <= PIECE)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_csv_of_other_delimiters_with_large_fields(tmp_path, delimiter):
    documents = [f'{i}, "quoted" and\nof two lines; {"x" * 150_000}' for i in range(30)]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.writer(out, delimiter=delimiter)
        writer.writerows([("number", "text"), *enumerate(documents)])
    found = [row["text"] for part in ("train", "validation") for row in text_stream(str(tmp_path), part)]
    assert sum(map(len, found)) == sum(map(len, documents))


def test_only_the_text_column_matters(tmp_path):
    extra = ({"meta": {"page": 1}}, {"score": 1.5}, {"meta": "none"})
    for name, more in zip("abc", extra, strict=True):
        rows = ({"text": f"{name} {text}"} | more for text in texts(0, 200))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    check_text(str(tmp_path))
    assert len(both(tmp_path)) == 600


def test_another_column(tmp_path):
    write(tmp_path / "a.jsonl", texts(0, 5), column="content")
    write(tmp_path / "b.parquet", texts(5, 9), column="content")
    assert both(tmp_path, column="content") == texts(0, 9)
    assert next(iter(text_stream(str(tmp_path), "train", column="content"))).keys() == {"text", "begins"}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Several blocks and parts of files, of all formats, in small."""
    folder = tmp_path_factory.mktemp("mixed")
    for i, name in enumerate(("a.parquet", "b.jsonl", "c.jsonl.gz", "d.csv")):
        write(folder / name, [f"{text} {'word ' * 300}" for text in texts(400 * i, 400 * i + 400)])
    (folder / "book.txt").write_text(BOOK)
    return folder


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_stream_resumes_exactly_with_a_small_state(mixed, part, monkeypatch):
    monkeypatch.setattr(text_stream_module, "BLOCK", 100_000)
    monkeypatch.setattr(text_readers, "CHUNK_BYTES", 100_000)
    monkeypatch.setattr(text_stream_module, "HELD_OUT", 0.2)
    stream = text_stream(str(mixed), part)
    for epoch in (0, 3):
        stream.set_epoch(epoch)
        whole, states = [], []
        for row in stream:
            whole.append(row)
            states.append(json.dumps(stream.state_dict()))
        assert max(map(len, states)) < 600
        for stop in range(0, len(whole), 1 + len(whole) // 15):
            again = text_stream(str(mixed), part)
            again.set_epoch(epoch)
            again.load_state_dict(json.loads(states[stop]))
            assert json.dumps(again.state_dict()) == states[stop]
            assert list(again) == whole[stop + 1 :]
            assert list(again) == whole, "from the beginning, once resumed"


def test_text_is_shuffled_by_seed_and_epoch(mixed):
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        stream = text_stream(str(mixed), "train", seed=seed)
        stream.set_epoch(epoch)
        orders.append([row["text"][:60] for row in stream])
    assert orders[0] == orders[3]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2] != orders[0]
    numbers = [int(text.split()[1].strip(",")) for text in orders[0] if text.startswith("document")]
    assert np.corrcoef(numbers, range(len(numbers)))[0, 1] < 0.3
    assert len({number // 400 for number in numbers[:50]}) == 4, "all files from the beginning"


def test_text_that_has_changed_begins_again(tmp_path, capsys):
    write(tmp_path / "a.jsonl", texts(0, 300))
    stream = text_stream(str(tmp_path), "train")
    list(stream.take(100))
    write(tmp_path / "b.jsonl", texts(300, 400))
    again = text_stream(str(tmp_path), "train")
    again.load_state_dict(stream.state_dict())
    assert sorted(row["text"] for row in again) == sorted(read(tmp_path, "train"))
    assert "the text has changed since the checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "jsonl.gz", "csv"])
def test_the_size_of_the_text_is_known(tmp_path, suffix):
    rng = random.Random(0)
    documents = [" ".join(f"{rng.random()}" for _ in range(40)) for _ in range(3000)]
    for name in "ab":
        write(tmp_path / f"{name}.{suffix}", documents[:: 1 if name == "a" else 3])
    trained = sum(map(len, read(tmp_path, "train")))
    assert text_stream(str(tmp_path), "train").text_bytes() == pytest.approx(trained, rel=0.05)


def test_files_that_datasets_streams(tmp_path):
    """What a Hub id goes through, on files here: shuffled, in pieces, resumable, a share held out of one file."""
    for name, first in (("a", 0), ("b", 300), ("c", 600)):
        write(tmp_path / f"{name}.parquet", [*texts(first, first + 300), BOOK[: 3 * PIECE]])
    files = [str(tmp_path / f"{name}.parquet") for name in "abc"]
    make = partial(HubText, files, "text", partial(streamed, "parquet"), None)
    stream = TextStream(make())
    rows = list(stream)
    assert sorted(row["text"] for row in rows if row["text"].startswith("doc")) == sorted(texts(0, 900))
    assert sum(row["begins"] for row in rows) == 903
    assert sum(len(row["text"]) for row in rows if not row["text"].startswith("doc")) == 9 * PIECE
    again = TextStream(make())
    first = list(again.take(200))
    other = TextStream(make())
    other.load_state_dict(json.loads(json.dumps(again.state_dict())))
    assert first + list(other) == rows
    parts = [[row["text"] for row in TextStream(make(), 0, part)] for part in ("train", "validation")]
    assert sorted(parts[0] + parts[1]) == sorted(row["text"] for row in rows)
    assert not set(parts[0]) & set(parts[1])


def test_builtin():
    for split, of_world in (("train", "train"), ("validation", "test")):
        found = list(text_stream("builtin", split).take(20))
        assert found == list(world.rows("documents", of_world, 20))
    check_text("builtin")


def put(file: Path, data: bytes | str) -> None:
    file.parent.mkdir()
    file.write_bytes(data if isinstance(data, bytes) else data.encode())


MISTAKES = {
    "missing": (lambda folder: None, "no such file or folder, and not a Hub id (USER/NAME)"),
    "empty": (lambda folder: folder.mkdir(), "holds no data files"),
    "no data": (lambda folder: put(folder / "a.png", "x"), "holds no data files but a.png. These are read: .parquet, "),
    "wrong column": (
        lambda folder: write(folder / "a.csv", ["x"], "body"),
        "a.csv, row 1: no column 'text' but body, number (1 of the first 1 rows). Set text_c",
    ),
    "wrong column of one file": (
        lambda folder: write(folder / "a.parquet", ["x"], "body") or write(folder / "b.jsonl", texts(0, 50)),
        "a.parquet, row 1: no column 'text' but body, number (1 of the first 1 rows). Set text_c",
    ),
    "no rows": (lambda folder: write(folder / "a.jsonl", []), "holds no documents"),
    "no rows, only columns": (lambda folder: write(folder / "a.csv", []), "holds no documents"),
    "an empty text file": (lambda folder: put(folder / "a.txt", ""), "holds no documents"),
    "one word": (lambda folder: put(folder / "a.txt", "word"), "holds a single text of 4 characters"),
    "blank": (lambda folder: write(folder / "a.jsonl", [" \n"] * 200), "holds no documents with text"),
    "null": (lambda folder: write(folder / "a.jsonl", [None] * 200), "holds no documents with text"),
    "numbers": (lambda folder: write(folder / "a.jsonl", [7] * 200), "line 1: column 'text' holds int (7), not text"),
    "lists": (
        lambda folder: write(folder / "a.parquet", [["x"]] * 200),
        "row 1: column 'text' holds list (['x']), not",
    ),
    "Latin-1 text": (
        lambda folder: put(folder / "a.txt", ("tea\n" * 999 + "caf\xe9\n" + "tea\n" * 999).encode("latin-1")),
        "a.txt, line 1,000: it is not UTF-8. Convert it: iconv -f LATIN1 -t UTF-8",
    ),
    "UTF-16 text": (lambda folder: put(folder / "a.txt", ("tea\n" * 999).encode("utf-16")), "it is not UTF-8. Convert"),
    "Latin-1 lines": (
        lambda folder: put(folder / "a.jsonl", ('{"text": "tea"}\n' * 999 + '{"text": "\xe9"}').encode("latin-1")),
        "a.jsonl, line 1,000: it is not UTF-8",
    ),
    "Latin-1 table": (
        lambda folder: put(folder / "a.csv", "text\ncaf\xe9\n".encode("latin-1")),
        "row 2: it is not UTF-8",
    ),
    "UTF-16 table": (
        lambda folder: put(folder / "a.csv", "text\nx\n".encode("utf-16")),
        "a.csv, row 1: it is not UTF-8",
    ),
    "a link to nothing": (
        lambda folder: write(folder / "a.jsonl", texts(0, 50)) or (folder / "b.txt").symlink_to("gone"),
        "b.txt: No such file or directory. Remove it",
    ),
    "prose called .jsonl": (lambda folder: put(folder / "a.jsonl", "It was\na dark\n" * 99), "line 1: it is not JSON"),
    "one object of many lines": (lambda folder: put(folder / "a.json", '{\n"text":\n"x"\n}'), "line 1: it is not JSON"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_source_that_cannot_work_says_so_at_once(tmp_path, name):
    make, complaint = MISTAKES[name]
    folder = tmp_path / "source"
    make(folder)
    started = time.perf_counter()
    with pytest.raises(ValueError, match="dataset=") as error:
        check_text(str(folder), column="text")
    assert time.perf_counter() - started < 2
    assert complaint in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("dataset", ["", "/", "./nowhere", "../nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_what_is_no_source_at_all(dataset):
    for use in (check_text, lambda d: text_stream(d, "train"), lambda d: open_table(d, "train")):
        with pytest.raises(ValueError, match="no such file or folder, and not a Hub id"):
            use(dataset)


@pytest.mark.parametrize("dataset", ["gsm8k", "openai/gsm8k"])
def test_a_hub_id_cannot_be_checked_offline(dataset):
    with pytest.raises(NotChecked, match="HF_HUB_OFFLINE"):
        check_text(dataset)


def test_builtin_examples():
    assert len(builtin_examples("problems", "train", 5)) == 5
    assert builtin_examples("problems", "train", 5)[:3] == builtin_examples("problems", "train", 3)[:]
    with pytest.raises(RecipeError, match="the kinds are"):
        builtin_examples("nonsense", "train", 5)
    with pytest.raises(RecipeError, match="set rows"):
        builtin_examples("problems", "train", None)
    with pytest.raises(RecipeError, match="set rows"):
        builtin_examples("problems", "train", 0)
    with pytest.raises(RecipeError, match="has train, test, without slices"):
        builtin_examples("problems", "train[:50%]", 5)


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="NANOHF_TEST_DATA is not set")
def test_real_corpus():
    folder = str(Path(REAL) / "corpus")
    check_text(folder, column="text")
    found = {split: [row["text"] for row in text_stream(folder, split)] for split in ("train", "validation")}
    assert len(found["train"]) > 10 * len(found["validation"]) > 1000
    assert not set(found["train"]) & set(found["validation"])
    assert sum(map(len, found["train"])) > 10**7
    parquet = Dataset.from_parquet([str(file) for file in Path(folder).glob("train-*.parquet")])
    assert sorted(found["train"]) == sorted(parquet["text"])
