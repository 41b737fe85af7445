"""Sources: folders of every format, their two splits, and what is said of those that cannot work."""

import csv
import gzip
import json
import os
import time
from itertools import islice
from pathlib import Path

import pytest
from datasets import Dataset

from nanohf.data import toy_world as world
from nanohf.data.sources import check_examples, check_text, examples, skipped_files, text_stream

REAL = os.environ.get("NANOHF_TEST_DATA")
pytestmark = pytest.mark.usefixtures("offline")


def texts(first: int, last: int) -> list[str]:
    return [f"document {i}, with a comma" for i in range(first, last)]


def write(file: Path, documents: list[str], column: str = "text") -> None:
    rows = [{column: text, "number": i} for i, text in enumerate(documents)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    match file.suffixes:
        case [".parquet"]:
            Dataset.from_list(rows).to_parquet(file)
        case [".jsonl"]:
            file.write_text(lines)
        case [".jsonl", ".gz"]:
            file.write_bytes(gzip.compress(lines.encode()))
        case [".csv"]:
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, [column, "number"])
                writer.writeheader()
                writer.writerows(rows)


def read(folder: Path, split: str, **options) -> list[str]:
    return [row["text"] for row in text_stream(str(folder), split, **options)]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "jsonl.gz", "csv"])
def test_the_last_file_is_for_validation(tmp_path, suffix):
    for name, first in (("b", 30), ("c", 60), ("a", 0)):
        write(tmp_path / f"{name}.{suffix}", texts(first, first + 30))
    assert read(tmp_path, "train") == texts(0, 60)
    assert read(tmp_path, "validation") == texts(60, 90)
    check_text(str(tmp_path), column="text")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "jsonl.gz", "csv"])
def test_one_file_lends_every_hundredth_document(tmp_path, suffix):
    write(tmp_path / f"only.{suffix}", texts(0, 250))
    assert read(tmp_path, "validation") == [texts(0, 250)[99], texts(0, 250)[199]]
    assert sorted(read(tmp_path, "train") + read(tmp_path, "validation")) == sorted(texts(0, 250))


def test_text_files_are_documents(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"{name} one\n\n{name} two\r\n")
    assert [text.split() for text in read(tmp_path, "train")] == [["a", "one", "a", "two"], ["b", "one", "b", "two"]]
    assert [text.split() for text in read(tmp_path, "validation")] == [["c", "one", "c", "two"]]


def test_a_lone_text_file_is_read_by_paragraphs(tmp_path):
    (tmp_path / "book.txt").write_text("\n\n".join(f"paragraph {i}\nof the book" for i in range(300)))
    assert len(read(tmp_path, "train")) == 297
    assert read(tmp_path, "validation")[0] == "paragraph 99\nof the book"


@pytest.mark.parametrize(
    ("train", "validation"),
    [("train.jsonl", "validation.jsonl"), ("train-00000.jsonl", "val-00000.jsonl"), ("train/a.jsonl", "test/a.jsonl")],
)
def test_named_splits(tmp_path, train, validation):
    write(tmp_path / train, texts(0, 20))
    write(tmp_path / validation, texts(20, 30))
    assert read(tmp_path, "train") == texts(0, 20)
    assert read(tmp_path, "validation") == texts(20, 30)


@pytest.mark.parametrize("name", ["test.jsonl", "my-dev.jsonl"])
def test_a_lone_file_with_the_name_of_a_split_is_not_both(tmp_path, name):
    write(tmp_path / name, texts(0, 200))
    assert not set(read(tmp_path, "train")) & set(read(tmp_path, "validation"))
    assert len(read(tmp_path, "train")) == 198


def test_another_column(tmp_path):
    write(tmp_path / "a.jsonl", texts(0, 5), column="content")
    write(tmp_path / "b.jsonl", texts(5, 9), column="content")
    assert read(tmp_path, "train", column="content") == texts(0, 5)
    assert next(iter(text_stream(str(tmp_path), "train", column="content"))).keys() == {"text"}


def test_a_stream_goes_on_from_its_state(tmp_path):
    write(tmp_path / "only.parquet", texts(0, 250))
    stream = text_stream(str(tmp_path), "train")
    documents = iter(stream)
    first = [row["text"] for row in islice(documents, 120)]
    state = json.loads(json.dumps(stream.state_dict()))
    again = text_stream(str(tmp_path), "train")
    again.load_state_dict(state)
    assert first + [row["text"] for row in again] == read(tmp_path, "train")


@pytest.mark.parametrize("damaged", ["a", "b"])
@pytest.mark.parametrize("how", [lambda data: data[: len(data) // 2], lambda data: b""], ids=["truncated", "empty"])
def test_a_damaged_parquet_file_is_skipped_and_noted(tmp_path, damaged, how):
    for name, first in (("a", 0), ("b", 30), ("c", 60), ("d", 90)):
        write(tmp_path / f"{name}.parquet", texts(first, first + 30))
    file = tmp_path / f"{damaged}.parquet"
    file.write_bytes(how(file.read_bytes()))
    skipped_files.clear()
    whole = texts(0, 90)
    expected = whole[30:] if damaged == "a" else whole[:30] + whole[60:]
    assert read(tmp_path, "train") == expected
    assert skipped_files == {str(file)}

    stream = text_stream(str(tmp_path), "train")
    begin = [row["text"] for row in islice(stream, 25)]
    again = text_stream(str(tmp_path), "train")
    again.load_state_dict(stream.state_dict())
    assert begin + [row["text"] for row in again] == expected


def test_builtin():
    for split, of_world in (("train", "train"), ("validation", "test")):
        found = list(text_stream("builtin", split).take(20))
        assert found == list(world.rows("documents", of_world, 20))
    check_text("builtin")


MISTAKES = {
    "missing": (lambda folder: None, "is no folder and no Hub id"),
    "empty": (lambda folder: folder.mkdir(), "holds no data files"),
    "no data": (lambda folder: folder.mkdir() or (folder / "a.png").write_text("x"), "a.png is none of .parquet, "),
    "wrong column": (
        lambda folder: write(folder / "a.csv", ["x"], "body"),
        "no column 'text' but body, number. Set text_c",
    ),
    "no rows": (lambda folder: write(folder / "a.jsonl", []), "a.jsonl holds no documents"),
    "no rows, only columns": (lambda folder: write(folder / "a.csv", []), "a.csv holds no documents"),
    "an empty text file": (
        lambda folder: folder.mkdir() or (folder / "a.txt").write_text(""),
        "a.txt holds no documents",
    ),
    "too few": (
        lambda folder: write(folder / "a.jsonl", texts(0, 50)),
        "fewer than 100 documents, so none is left for",
    ),
    "blank": (lambda folder: write(folder / "a.jsonl", [" \n"] * 200), "has no text in column 'text'"),
    "null": (lambda folder: write(folder / "a.jsonl", [None] * 200), "has no text in column 'text'"),
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
    if name not in ("blank", "null"):
        with pytest.raises(ValueError, match="dataset="):
            text_stream(str(folder), "validation")


@pytest.mark.parametrize("dataset", ["", "/", "./nowhere", "../nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_what_is_no_source_at_all(dataset):
    for use in (check_text, check_examples, lambda d: text_stream(d, "train"), lambda d: examples(d, "train")):
        with pytest.raises(ValueError, match="is no folder and no Hub id"):
            use(dataset)


@pytest.mark.parametrize("dataset", ["gsm8k", "openai/gsm8k"])
def test_a_hub_id_is_left_for_later(dataset):
    check_text(dataset, column="text")


def test_examples_of_a_folder(tmp_path):
    write(tmp_path / "main" / "train-00000-of-00001.parquet", texts(0, 20))
    write(tmp_path / "main" / "test-00000-of-00001.parquet", texts(20, 30))
    folder = str(tmp_path / "main")
    assert examples(folder, "train")["text"][:] == texts(0, 20)
    assert examples(folder, "test", rows=3)["text"][:] == texts(20, 23)
    assert len(examples(folder, "test", rows=999)) == 10
    with pytest.raises(ValueError, match="validation"):
        examples(folder, "validation")


def test_examples_of_the_toy_world():
    assert examples("builtin", "train", "problems", 5).to_list() == list(world.rows("problems", "train", 5))
    other = examples("builtin", "test", "conversations", 5, seed=3)
    assert other.to_list() == list(world.rows("conversations", "test", 5, seed=3))
    with pytest.raises(ValueError, match="no end; set rows"):
        examples("builtin", "train", "problems")
    with pytest.raises(ValueError, match="not a split of the toy world"):
        examples("builtin", "validation", "problems", 5)


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="NANOHF_TEST_DATA is not set")
def test_real_corpus():
    folder = str(Path(REAL) / "corpus")
    check_text(folder, column="text")
    found = {split: [row["text"] for row in text_stream(folder, split)] for split in ("train", "validation")}
    assert len(found["train"]) > 10 * len(found["validation"]) > 1000
    assert not set(found["train"]) & set(found["validation"])
    assert sum(map(len, found["train"])) > 10**7
