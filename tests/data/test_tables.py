"""Tables of examples: the files of a split, slices, single files, and rows that are odd wherever they stand."""

import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset

from nanohf.data.tables import check_splits, open_head, open_table, split_names
from nanohf.errors import RecipeError

pytestmark = pytest.mark.usefixtures("offline")
BLOCK = 10_000_000  # bytes of a file that `datasets` takes the types from


def lines(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def numbered(*numbers: int) -> list[dict]:
    return [{"n": n, "text": f"row {n}"} for n in numbers]


def read(table) -> list[dict]:
    return [table.format.read(row) for row in table.data]


def found(*arguments, **options) -> list[int]:
    return [row["n"] for row in read(open_table(*arguments, **options))]


def test_slices_and_rows(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines(*numbered(*range(10))))
    (tmp_path / "test.jsonl").write_text(lines(*numbered(20, 21)))
    folder = str(tmp_path)
    assert found(folder, "train") == list(range(10))
    assert found(folder, "train[:90%]") == list(range(9))
    assert found(folder, "train[90%:]") == [9]
    assert found(folder, "train[2:4]+test") == [2, 3, 20, 21]
    assert found(folder, "train", rows=3) == [0, 1, 2]
    assert found(folder, "test", rows=9) == [20, 21]


@pytest.mark.parametrize("split", ["train[:90", "train[a:]", "", "train[:200%]"])
def test_no_such_slice(tmp_path, split):
    (tmp_path / "train.jsonl").write_text(lines(*numbered(0, 1)))
    with pytest.raises(RecipeError, match=r"split="):
        open_table(str(tmp_path), split)


def test_a_split_that_is_missing_is_named_with_those_there_are(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines(*numbered(0)))
    for split in ("test", "test[:50%]", "train+test"):
        with pytest.raises(RecipeError, match=r"has no split 'test' but train"):
            open_table(str(tmp_path), split)
    (tmp_path / "train.jsonl").rename(tmp_path / "test.jsonl")  # never trained on, even alone
    with pytest.raises(RecipeError, match=r"has no split 'train' but test"):
        open_table(str(tmp_path), "train")


def test_every_file_of_a_folder_is_used_whatever_words_its_name_holds(tmp_path):
    for n, name in enumerate(("web.jsonl", "books-train.jsonl", "stack-dev.JSONL", "more/any test.json")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(lines(*numbered(n)))
    (tmp_path / "test.jsonl").write_text(lines(*numbered(8)))
    (tmp_path / "notes.md").write_text("# notes")
    assert sorted(found(str(tmp_path), "train")) == [0, 1, 2, 3]
    assert found(str(tmp_path), "test") == [8]


def test_shards_subfolders_and_other_splits(tmp_path):
    for n, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        Dataset.from_list(numbered(n)).to_parquet(tmp_path / f"{name}.parquet")
    assert (found(str(tmp_path), "train"), found(str(tmp_path), "test")) == ([0, 1], [2])
    (tmp_path / "b/dev").mkdir(parents=True)
    (tmp_path / "b/dev/a.jsonl").write_text(lines(*numbered(3)))
    (tmp_path / "b/hard.jsonl").write_text(lines(*numbered(4)))
    assert (found(str(tmp_path / "b"), "dev"), found(str(tmp_path / "b"), "hard")) == ([3], [4])


def test_a_card_decides(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(*numbered(0)))
    (tmp_path / "b.jsonl").write_text(lines(*numbered(1)))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: easy, path: b.jsonl}\n---\n"
    )
    assert found(str(tmp_path), "easy") == [1]
    with pytest.raises(RecipeError, match=r"no split 'train' but easy"):
        open_table(str(tmp_path), "train")


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSON", "a.json", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_a_single_file(tmp_path, name):
    rows, file = numbered(*range(10)), tmp_path / name
    if name.endswith("gz"):
        file.write_bytes(gzip.compress(lines(*rows).encode()))
    elif name == "a.csv":
        file.write_text("n,text\n" + "".join(f"{row['n']},{row['text']}\n" for row in rows))
    elif name == "a.parquet":
        Dataset.from_list(rows).to_parquet(file)
    else:
        file.write_text(json.dumps(rows, indent=1) if name == "a.json" else lines(*rows))
    assert read(open_table(str(file), "train")) == rows
    assert found(str(file), "train[:50%]") == list(range(5))
    with pytest.raises(RecipeError, match=r"no split 'test' but train"):
        open_table(str(file), "test")


def test_what_is_no_table(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(RecipeError, match=r"a\.txt is not a table"):
        open_table(str(tmp_path / "a.txt"), "train")
    (tmp_path / "a.txt").rename(tmp_path / "a.csv")
    (tmp_path / "b.jsonl").write_text(lines({"a": 1}))
    with pytest.raises(RecipeError, match=r"its files are csv and lines"):
        open_table(str(tmp_path), "train")


@pytest.mark.parametrize("odd", [{"n": 0, "text": 4}, {"n": 0, "text": None}, {"n": 0, "text": ["a"], "late": 1}])
def test_an_odd_row_behind_the_first_block_changes_no_other(tmp_path, odd):
    """`datasets` itself turns the texts of the whole second block into JSON, or ends."""
    rows = [{"n": n, "text": f"row {n} " + "x" * 10_000} for n in range(BLOCK // 10_000 + 50)]
    rows[-20] = odd
    (tmp_path / "a.jsonl").write_text(lines(*rows))
    got = read(open_table(str(tmp_path), "train"))
    assert got[-20] == {"n": 0, "text": odd["text"]}
    assert got[:-20] + got[-19:] == rows[:-20] + rows[-19:]


def test_lines_that_are_no_rows(tmp_path):
    good = lines(*numbered(1)).encode()
    (tmp_path / "a.jsonl").write_bytes(
        b"\xef\xbb\xbf" + good + b"\n  \n" + b'{"n": 2, "te\n' + b'{"n": 3, "text": "caf\xe9"}\n' + b"[1]\n" + good
    )
    table = open_table(str(tmp_path), "train")
    faults = []
    for row in table.data:
        try:
            faults.append(table.format.read(row)["n"])
        except ValueError as error:
            faults.append(str(error))
    assert [faults[0], faults[-1]] == [1, 1]
    assert [fault[:20] for fault in faults[1:4]] == [
        "the line is not JSON",
        "the line is not JSON",
        "the line is a JSON l",
    ]
    assert len(faults) == 5


def test_columns_of_the_first_hundred_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(*({"n": n} for n in range(99)), {"n": 99, "late": 1}, {"later": 2}))
    table = open_table(str(tmp_path), "train")
    assert table.columns == ["n", "late"]
    assert read(table)[-2:] == [{"n": 99, "late": 1}, {"n": None, "late": None}]
    renamed = table.rename({"number": "n"}, "a")
    assert read(renamed)[3] == {"number": 3}
    with pytest.raises(RecipeError, match=r"source a has no m; its columns are n, late"):
        table.rename({"number": "m"}, "a")


def test_a_head_is_the_first_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(*numbered(*range(30))))
    assert len(open_head(str(tmp_path), "train")) == 20
    assert len(open_head(str(tmp_path), "train[:10%]")) == 3


def test_split_names():
    assert split_names("train[:90%]+test") == ["train", "test"]
    check_splits("a", "train[5:]", ["train"])
    check_splits("a", "train", [])  # a source that does not say


def test_nothing_there(tmp_path):
    with pytest.raises(RecipeError, match="no such file or folder"):
        open_table(str(tmp_path / "none.jsonl"), "train")
    Path(tmp_path, "a.jsonl").write_text("")
    with pytest.raises(RecipeError, match="the files of split 'train' are empty"):
        open_table(str(tmp_path), "train")
    Path(tmp_path, "a.jsonl").unlink()
    with pytest.raises(RecipeError, match="holds no data files"):
        open_table(str(tmp_path), "train")


@pytest.mark.parametrize("name", ["chats.jsonl", "CHATS.JSONL", "chats[1].json", "deep[2]/er/train.jsonl", "up/A.CSV"])
def test_files_and_odd_paths(tmp_path, name, monkeypatch):
    plain, rows = tmp_path / f"plain{Path(name).suffix.lower()}", Dataset.from_list(numbered(*range(20)))
    rows.to_csv(plain) if plain.suffix == ".csv" else rows.to_json(plain)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    plain.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for dataset in (name, f"./{name}", str(tmp_path / name), *([str(Path(name).parent)] if "/" in name else [])):
        assert found(dataset, "train") == list(range(20))
        assert found(dataset, "train[:3]") == [0, 1, 2]
        with pytest.raises(RecipeError, match="test"):
            open_table(dataset, "test")
