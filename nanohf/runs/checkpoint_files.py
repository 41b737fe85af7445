"""Checkpoints on disk, of every stage: written aside, sealed, renamed; examined before they are used.

A checkpoint is a folder NAME-STEP. Its seal, complete.json, has the size and CRC-32 of each of its files, so that a
truncated, missing or altered one is found before anything is loaded. All is flushed to the disk before the rename: a
folder of that name is whole, also after a power cut.
"""

import json
import os
import re
import shutil
import zlib
from pathlib import Path

from nanohf import console
from nanohf.errors import RecipeError

SEAL = "complete.json"


def numbered(checkpoints: Path) -> list[Path]:
    """The checkpoints of a folder, the oldest first. Half-written ones have other names."""
    found = [p for p in checkpoints.glob("*-*") if p.is_dir() and re.fullmatch(r"[a-z]+-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def put_in_place(partial: Path, final: Path) -> None:
    """Seals a complete checkpoint and gives it its name."""
    seal(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    flush(final.parent)


def seal(folder: Path) -> None:
    files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    content = {name: {"bytes": p.stat().st_size, "crc32": checksum(p)} for name, p in files.items()}
    (folder / SEAL).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for path in (*files.values(), folder / SEAL, *(p for p in folder.rglob("*") if p.is_dir()), folder):
        flush(path)


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None where every file is as it was written."""
    try:
        content = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        for name, written in content.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != written["bytes"]:
                return f"{name} has {size:,} bytes of {written['bytes']:,}"
            if checksum(path) != written["crc32"]:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"it has no {SEAL}"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{SEAL} cannot be read ({error})"
    return None


def newest_whole(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is as it was written; None where there is no checkpoint.

    Damaged ones are named and moved aside, where they take no other's place.

    Raises:
        RecipeError: there are checkpoints and all are damaged.
    """
    damaged: list[tuple[Path, str]] = []
    for folder in reversed(numbered(checkpoints)):
        if (found := fault(folder)) is None:
            for bad, why in damaged:
                aside = bad.with_name(f".{bad.name}.damaged")
                shutil.rmtree(aside, ignore_errors=True)
                bad.rename(aside)
                console.warning(f"{bad} is damaged ({why}): moved to {aside}, resuming from the older {folder.name}")
            return folder
        damaged.append((folder, found))
    if damaged:
        raise RecipeError(
            [f"{bad} is damaged: {why}" for bad, why in damaged]
            + [f"no checkpoint is left to resume from. Restore one, or start again: --from {checkpoints.name}"]
        )
    return None


def last_good(checkpoints: Path) -> Path | str:
    """For messages."""
    return next(reversed(numbered(checkpoints)), "the beginning: there is no checkpoint yet")


def checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def flush(path: Path) -> None:
    """A file's or folder's content to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
