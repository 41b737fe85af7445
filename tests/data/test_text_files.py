"""Which files of a folder are read, and to which split they belong."""

from pathlib import Path

import pytest
from text_folders import both, read, texts, write

from nanohf.data.sources import check_text, text_stream

pytestmark = pytest.mark.usefixtures("offline")


@pytest.mark.parametrize("odd", ["stack-dev", "a-test-of-time", "train-journeys", "test", "validation", "my-train"])
def test_words_in_names_are_no_splits(tmp_path, odd):
    for name in ("web", "books", odd):
        write(tmp_path / f"{name}.jsonl", [f"{name} {text}" for text in texts(0, 300)])
    found = both(tmp_path)
    assert {text.split()[0] for text in found} == {"web", "books", odd}
    assert len(found) == 900


SPLITS = {
    "siblings": ("train.jsonl", "validation.jsonl"),
    "siblings of other formats": ("train.csv", "test.jsonl"),
    "shards": ("train-00000.jsonl", "val-00000.jsonl"),
    "shards of the Hub": ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
    "folders": ("train/a.jsonl", "test/a.jsonl"),
    "one folder": ("web/a.jsonl", "Validation/deep/a.jsonl"),
}


@pytest.mark.parametrize("names", SPLITS)
def test_named_splits(tmp_path, names):
    train, validation = SPLITS[names]
    write(tmp_path / train, texts(0, 20))
    write(tmp_path / validation, texts(20, 30))
    assert sorted(read(tmp_path, "train")) == sorted(texts(0, 20))
    assert sorted(read(tmp_path, "validation")) == sorted(texts(20, 30))


def test_a_split_that_the_recipe_names(tmp_path):
    for split, first in (("books", 0), ("web", 300), ("validation", 600)):
        write(tmp_path / split / "a.jsonl", texts(first, first + 300))
    assert sorted(read(tmp_path, "train", split="books")) == sorted(texts(0, 300))
    assert sorted(read(tmp_path, "validation", split="books")) == sorted(texts(600, 900))
    assert len(read(tmp_path, "train")) == 600
    with pytest.raises(ValueError, match=r"has no split .poems. but train, validation\. Set split"):
        text_stream(str(tmp_path), "train", split="poems")


def test_a_card_that_lists_files_decides(tmp_path):
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: a.jsonl}\n---\nText.\n"
    (tmp_path / "README.md").write_text(card)
    write(tmp_path / "a.jsonl", texts(0, 200))
    (tmp_path / "sources.csv").write_text("file,row\n1,2\n")
    assert both(tmp_path) == sorted(texts(0, 200))
    with pytest.raises(ValueError, match="dataset_config='other'"):
        text_stream(str(tmp_path), "train", "other")


@pytest.mark.parametrize("name", ["test.jsonl", "my-dev.jsonl", "train-00000-of-00001.jsonl", "val/a.jsonl"])
def test_a_lone_file_with_the_name_of_a_split_is_divided(tmp_path, name):
    write(tmp_path / name, texts(0, 200))
    assert both(tmp_path) == sorted(texts(0, 200))


@pytest.mark.parametrize("name", ["corpus.jsonl", "CORPUS.JSONL", "a[1]*.jsonl", "a b.Parquet", "c.Csv", "e.jsonl.GZ"])
def test_one_file_is_a_source(tmp_path, name, monkeypatch):
    plain = tmp_path / f"plain{''.join(Path(name).suffixes).lower()}"
    write(plain, texts(0, 200))
    (tmp_path / "data").mkdir()
    plain.rename(tmp_path / "data" / name)
    monkeypatch.chdir(tmp_path)
    for dataset in (f"data/{name}", f"./data/{name}", str(tmp_path / "data" / name), "data"):
        check_text(dataset)
        assert both(dataset) == sorted(texts(0, 200))
    with pytest.raises(ValueError, match="no such file or folder"):
        check_text("data/missing.jsonl")


def test_links_nested_folders_and_what_is_hidden(tmp_path):
    write(tmp_path / "elsewhere" / "a.jsonl", texts(0, 100))
    write(tmp_path / "own" / "deep" / "er" / "b.jsonl", texts(100, 200))
    write(tmp_path / "own" / ".hidden" / "c.jsonl", texts(200, 300))
    write(tmp_path / "own" / "._d.jsonl", texts(300, 400))
    (tmp_path / "own" / "e.jsonl").touch()
    (tmp_path / "own" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "own" / "circle").symlink_to(tmp_path / "own")
    (tmp_path / "linked[0]").symlink_to(tmp_path / "own")
    assert both(tmp_path / "linked[0]") == both(tmp_path / "own") == sorted(texts(0, 200))
