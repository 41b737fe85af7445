"""Damaged files and lines: skipped, counted and named, wherever they stand."""

import json
import random

import pytest
from text_folders import both, texts, write

from nanohf.data import skipped
from nanohf.data.sources import check_text, skipped_files

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture
def nothing_skipped():
    skipped.forget()


@pytest.mark.parametrize("how", [lambda data: data[: len(data) // 2], lambda data: b""], ids=["truncated", "empty"])
def test_a_damaged_parquet_file_is_skipped_and_noted(tmp_path, how, nothing_skipped, capsys):
    for name, first in (("a", 0), ("b", 30), ("c", 60)):
        write(tmp_path / f"{name}.parquet", texts(first, first + 30))
    file = tmp_path / "b.parquet"
    file.write_bytes(how(file.read_bytes()))
    check_text(str(tmp_path))
    assert both(tmp_path) == sorted(texts(0, 30) + texts(60, 90))
    assert skipped_files == {str(file)}
    assert capsys.readouterr().err.count(str(file)) == 1


def test_damaged_pages_and_archives_are_skipped_and_noted(tmp_path, nothing_skipped):
    rng = random.Random(0)
    write(tmp_path / "a.parquet", [f"{i} {rng.random()}" for i in range(20_000)])
    write(tmp_path / "b.jsonl.gz", [f"{i} {rng.random()}" for i in range(20_000)])
    write(tmp_path / "c.jsonl", texts(0, 100))
    parquet, archive = ((tmp_path / name).read_bytes() for name in ("a.parquet", "b.jsonl.gz"))
    middle = len(parquet) // 4
    (tmp_path / "a.parquet").write_bytes(parquet[:middle] + rng.randbytes(middle) + parquet[2 * middle :])
    (tmp_path / "b.jsonl.gz").write_bytes(archive[: len(archive) // 2])
    found = both(tmp_path)
    assert set(texts(0, 100)) <= set(found)
    assert len(found) > 8000, "what stands before the damage is read"
    assert {str(tmp_path / "a.parquet"), str(tmp_path / "b.jsonl.gz")} <= skipped_files


BAD_LINES = {
    "cut off": (b'{"text": "cut off he', "it is not JSON"),
    "half a character": (json.dumps({"text": "half an emoji \ud83d"}).encode(), "a lone surrogate"),
    "Latin-1": ('{"text": "caf\xe9"}'.encode("latin-1"), "it is not UTF-8"),
    "a number": (b'{"text": 7}', "column 'text' holds int (7), not text"),
    "no column": (b'{"body": "x"}', "no column 'text' but body"),
    "no object": (b'["x"]', "a list and not an object"),
    "deep": (b"[" * 100_000, "it is not JSON"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_late_in_a_file_is_skipped_and_named(tmp_path, name, nothing_skipped, capsys):
    line, fault = BAD_LINES[name]
    long = [f"{text} {'x' * 1500}" for text in texts(0, 7000)]
    write(tmp_path / "a.jsonl", long)
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(line + b"\n" + json.dumps({"text": "the last"}).encode())
    check_text(str(tmp_path))
    assert both(tmp_path) == sorted([*long, "the last"])
    assert skipped_files == {f"{tmp_path / 'a.jsonl'}, line 7,001"}
    assert fault in capsys.readouterr().err


def test_many_bad_lines_are_not_all_named(tmp_path, nothing_skipped):
    lines = [b"{" if i % 20 == 0 else json.dumps({"text": text}).encode() for i, text in enumerate(texts(0, 4000))]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    check_text(str(tmp_path))
    assert len(both(tmp_path)) == 3800
    assert len(skipped_files) == skipped.NAMED + 1
    assert f"{tmp_path / 'a.jsonl'}, more than 100 rows" in skipped_files


def test_empty_lines_null_and_byte_order_marks_are_no_faults(tmp_path, nothing_skipped):
    lines = [json.dumps({"text": text}) for text in texts(0, 50)]
    body = "\r\n\r\n".join([*lines, '{"text": null}', '{"text": ""}'])
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + body.encode())
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf" + "Grüße\r\naus Köln".encode())
    assert both(tmp_path) == sorted(["", "", "Grüße\naus Köln", *texts(0, 50)])
    assert not skipped_files
