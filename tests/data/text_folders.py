"""Folders of text in every format, and what is read of them. Not a test."""

import csv
import gzip
import json
from pathlib import Path

from datasets import Dataset

from nanohf.data.sources import text_stream


def texts(first: int, last: int) -> list[str]:
    return [f"document {i}, with a comma" for i in range(first, last)]


def write(file: Path, documents: list[str], column: str = "text") -> None:
    rows = [{column: text, "number": i} for i, text in enumerate(documents)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    match file.suffixes:
        case [".parquet"]:
            Dataset.from_list(rows).to_parquet(file)
        case [".jsonl" | ".json"]:
            file.write_text(lines)
        case [".jsonl", ".gz"]:
            file.write_bytes(gzip.compress(lines.encode()))
        case [".csv"]:
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, [column, "number"])
                writer.writeheader()
                writer.writerows(rows)


def read(folder: Path, part: str, **options) -> list[str]:
    return [row["text"] for row in text_stream(str(folder), part, **options)]


def both(folder: Path, **options) -> list[str]:
    """All text, once it is clear that none is in both parts."""
    train, validation = (read(folder, part, **options) for part in ("train", "validation"))
    assert not set(train) & set(validation)
    return sorted(train + validation)
