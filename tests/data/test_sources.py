"""Own text in any state: every file is read, or refused with file, place and cure; held out is never trained on."""

import gzip
import json
import os

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanohf.data import skipped
from nanohf.data.sources import builtin_examples, check_text, text_stream
from nanohf.errors import RecipeError

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(autouse=True)
def nothing_skipped_yet():
    skipped.forget()


def texts(count: int, start: int = 0) -> list[str]:
    return [f"document {i}, with a comma" for i in range(start, start + count)]


def write(path, rows: list[str], column: str = "text", **more) -> None:
    """Rows in the format that the ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = [{column: row, **more} for row in rows]
    name = path.name.lower()
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(table), path)
    elif name.endswith(".csv"):
        lines = [column, *(json.dumps(row) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif name.endswith(".gz"):
        with gzip.open(path, "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in table)
    elif name.endswith(".json"):
        path.write_text(json.dumps(table))
    elif name.endswith(".txt"):
        path.write_text("\n\n".join(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table))


def read(source, part: str = "train", **options) -> list[str]:
    return [row["text"] for row in text_stream(str(source), part, **options)]


def both(source, **options) -> list[str]:
    """What is trained on and what is held out; nothing is both."""
    train, validation = (read(source, part, **options) for part in ("train", "validation"))
    assert train
    assert validation
    assert not set(train) & set(validation)
    return sorted(train + validation)


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "jsonl.gz", "csv", "json", "JSONL"])
def test_every_document_of_every_format_is_in_one_part(tmp_path, ending):
    write(tmp_path / "mine" / f"a.{ending}", texts(300))
    check_text(str(tmp_path / "mine"))
    assert both(tmp_path / "mine") == sorted(texts(300))
    assert len(read(tmp_path / "mine", "validation")) < 30


def test_a_share_of_all_files_is_held_out_and_mixed_formats_are_all_read(tmp_path):
    for number, ending in enumerate(["jsonl", "parquet", "csv", "json"]):
        write(tmp_path / f"a{number}.{ending}", texts(300, 300 * number))
    assert both(tmp_path) == sorted(texts(1200))
    held_out = {int(text.split()[1].strip(",")) // 300 for text in read(tmp_path, "validation")}
    assert len(held_out) > 1


@pytest.mark.parametrize(
    "name", ["stack-dev.jsonl", "a-test-of-time.jsonl", "train-journeys.jsonl", "validation_notes.jsonl"]
)
def test_a_split_word_inside_a_name_means_nothing(tmp_path, name):
    write(tmp_path / "web.jsonl", texts(100))
    write(tmp_path / name, texts(100, 100))
    assert both(tmp_path) == sorted(texts(200))


@pytest.mark.parametrize(
    ("train", "other"),
    [
        ("train.jsonl", "validation.jsonl"),
        ("train-00000.jsonl", "val-00000.jsonl"),
        ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"),
        ("train/a.jsonl", "test/a.jsonl"),
    ],
)
def test_splits_as_on_the_hub(tmp_path, train, other):
    write(tmp_path / train, texts(50))
    write(tmp_path / other, texts(20, 50))
    assert sorted(read(tmp_path)) == sorted(texts(50))
    assert sorted(read(tmp_path, "validation")) == sorted(texts(20, 50))


@pytest.mark.parametrize("name", ["corpus.jsonl", "with [brackets] and *.jsonl"])
def test_a_single_file_and_odd_names(tmp_path, name, monkeypatch):
    write(tmp_path / name, texts(200))
    assert both(tmp_path / name) == sorted(texts(200))
    monkeypatch.chdir(tmp_path)
    check_text(name)
    os.symlink(tmp_path / name, tmp_path / "link.jsonl")
    assert both("link.jsonl") == sorted(texts(200))


def test_other_columns_do_not_matter(tmp_path):
    write(tmp_path / "a.jsonl", texts(100), source="web")
    write(tmp_path / "b.jsonl", texts(100, 100), score=3)
    write(tmp_path / "c.jsonl", texts(100, 200), tags=["x"])
    check_text(str(tmp_path))
    assert both(tmp_path) == sorted(texts(300))


def test_another_column(tmp_path):
    write(tmp_path / "a.jsonl", texts(200), column="body")
    assert both(tmp_path, column="body") == sorted(texts(200))
    with pytest.raises(RecipeError, match="Set text_column"):
        check_text(str(tmp_path))


def test_bad_lines_are_skipped_and_named(tmp_path, capsys):
    lines = [json.dumps({"text": text}) for text in texts(300)]
    lines[150] = lines[150][:-9]
    lines[200] = '{"text": "half of a pair: \\ud800"}'
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    check_text(str(tmp_path))
    assert len(both(tmp_path)) == 298
    assert {name.rpartition(":")[2] for name in skipped.skipped_files} == {"line 151", "line 201"}
    assert "line 151" in capsys.readouterr().err


def test_a_damaged_parquet_file_is_skipped_and_noted(tmp_path):
    write(tmp_path / "a.parquet", texts(200))
    write(tmp_path / "b.parquet", texts(200, 200))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:200])
    assert both(tmp_path) == sorted(texts(200))
    assert any("b.parquet" in name for name in skipped.skipped_files)


def test_separators_make_documents_of_one_text_file(tmp_path):
    stories = [f"Story {i}.\n\nIt has two paragraphs." for i in range(200)]
    (tmp_path / "all.txt").write_text("\n<|endoftext|>\n".join(stories))
    assert sorted(text.strip() for text in both(tmp_path)) == sorted(stories)


def test_a_long_text_comes_whole_in_pieces(tmp_path):
    book = "\n\n".join(f"Paragraph {i} " + "of the book, and so on. " * 20 for i in range(300))
    (tmp_path / "book.txt").write_text(book)
    (tmp_path / "other.txt").write_text(book.replace("book", "tale"))
    rows = [row for part in ("train", "validation") for row in text_stream(str(tmp_path), part)]
    assert sum(len(row["text"]) for row in rows) == 2 * len(book)
    assert all(row["text"] in book or row["text"] in book.replace("book", "tale") for row in rows)
    assert sum(row["begins"] for row in rows) == 2


def test_text_is_shuffled_by_seed_and_epoch(tmp_path):
    write(tmp_path / "a.jsonl", texts(300))
    stream = text_stream(str(tmp_path), "train", seed=1)
    first = [row["text"] for row in stream]
    stream.set_epoch(1)
    second = [row["text"] for row in stream]
    assert first != second
    assert sorted(first) == sorted(second)
    assert first != sorted(first)
    assert first == read(tmp_path, seed=1) != read(tmp_path, seed=2)


@pytest.mark.parametrize("stop", [0, 1, 37, 199, 290])
def test_a_stream_resumes_exactly(tmp_path, stop):
    for number in range(3):
        write(tmp_path / f"{number}.jsonl", texts(100, 100 * number))
    stream = text_stream(str(tmp_path), "train", seed=3)
    whole = [row["text"] for row in stream]
    stream = text_stream(str(tmp_path), "train", seed=3)
    rows = iter(stream)
    for _ in range(stop):
        next(rows)
    state = json.loads(json.dumps(stream.state_dict()))
    again = text_stream(str(tmp_path), "train", seed=3)
    again.load_state_dict(state)
    assert [row["text"] for row in again] == whole[stop:]
    assert len(json.dumps(state)) < 2000


REFUSED = {
    "numbers": ("a.jsonl", '{"text": 5}\n' * 50, "text_column"),
    "lists": ("a.jsonl", '{"text": ["a"]}\n' * 50, "text_column"),
    "not json": ("a.jsonl", "hello\n" * 50, "a.jsonl"),
    "latin-1": ("a.txt", "caf\xe9 " * 500, "iconv"),
    "blank": ("a.jsonl", '{"text": "  "}\n' * 200, "text"),
    "nothing": ("a.jsonl", "", "no documents"),
    "of no kind": ("a.docx", "PK", "no data files"),
    "a single short text": ("a.txt", "short", "validation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_with_its_cure(tmp_path, name):
    file, content, says = REFUSED[name]
    (tmp_path / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(RecipeError, match=says) as error:
        check_text(str(tmp_path))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    "dataset", ["", "/", "./nowhere", "../nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", "x.jsonl"]
)
def test_what_is_no_source_at_all(dataset):
    with pytest.raises(RecipeError, match="no such file or folder"):
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
@pytest.mark.skipif("NANOHF_TEST_DATA" not in os.environ, reason="needs NANOHF_TEST_DATA")
@pytest.mark.parametrize("name", ["corpus", "stories"])
def test_real_text_has_its_own_validation(name):
    root = f"{os.environ['NANOHF_TEST_DATA']}/{name}"
    assert datasets.config.HF_HUB_OFFLINE
    parts = [[row["text"] for row in text_stream(root, part).take(200)] for part in ("train", "validation")]
    assert all(len(part) == 200 for part in parts)
    assert not set(parts[0]) & set(parts[1])
