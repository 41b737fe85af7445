"""Which files of a folder hold text, and which of them are another split."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from datasets import load_dataset_builder

from nanohf.errors import RecipeError

KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".txt": "text", ".csv": "csv"}
COMPRESSED = (".gz", ".zst")
ENDINGS = f"{', '.join(KINDS)}, also with {' or '.join(COMPRESSED)} behind"
SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
SHARD = re.compile(r"(.+?)-\d{5}(-of-\d{5})?")  # train-00000-of-00005, as on the Hub


@dataclass
class TextFiles:
    """The files of a source, sorted by path. `validation` is empty where a share of `train` must be held out."""

    train: list[Path]
    validation: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)  # no format we read, or a split that nothing reads


def kind(file: Path) -> str | None:
    """parquet, json, text or csv, by the file's ending in any case; None: none that is read."""
    return KINDS.get(os.path.splitext(uncompressed(file.name))[1].lower())


def uncompressed(name: str) -> str:
    return os.path.splitext(name)[0] if name.lower().endswith(COMPRESSED) else name


def find(dataset: str, config: str | None = None, split: str = "train") -> TextFiles:
    """All files of a folder that hold text, or the one file that `dataset` names.

    A subfolder (or a family of shards `NAME-00000-of-00005.parquet`) called train, validation, val, valid, dev or test
    is a split, and so are train.EXT and validation.EXT (test.EXT) side by side. Any other file is training text,
    whatever words its name holds. A card (README.md) that lists its files, or a configuration, decides instead.
    `split` names the one to train on where it is not train.

    Raises:
        RecipeError: no file that can be read, or no such split.
    """
    split = SPLITS.get(split, split)
    by_card = Path(dataset).is_dir() and (bool(config) or card_lists_files(dataset))
    found, others = (_listed(dataset, config), []) if by_card else _found(dataset, split)
    if split not in found and split == "train" and not by_card:  # a folder of nothing but test/
        return TextFiles(sorted(file for files in found.values() for file in files), [], others)
    if split not in found:
        have = ", ".join(sorted(found))
        raise RecipeError(f"dataset={dataset!r} has no split {split!r} but {have}. Set split to one of these.")
    held_out = next((name for name in ("validation", "test") if name != split and name in found), None)
    unused = [file for label, files in found.items() if label not in (split, held_out) for file in files]
    return TextFiles(sorted(found[split]), sorted(found[held_out] if held_out else []), sorted(others + unused))


def _found(dataset: str, wanted: str) -> tuple[dict[str, list[Path]], list[Path]]:
    """The files by the split they belong to, and those that are not read."""
    path = Path(dataset)
    if path.is_file() and not kind(path):
        raise RecipeError(f"dataset={dataset!r} has none of the endings {ENDINGS}")
    found, others = ({wanted: [path]}, []) if path.is_file() else _labelled(path, wanted)
    if not found:
        names = f" but {some(others)}" if others else ""
        raise RecipeError(f"dataset={dataset!r} holds no data files{names}. These are read: {ENDINGS}")
    return found, others


def _labelled(folder: Path, wanted: str) -> tuple[dict[str, list[Path]], list[Path]]:
    """The text files by the split they belong to, and the other files."""
    files = sorted(files_in(folder))
    texts = [file for file in files if kind(file)]
    named: dict[Path, set[str | None]] = {}  # the splits that files of a folder are named after
    for file in texts:
        named.setdefault(file.parent, set()).add(SPLITS.get(_stem(file)))
    found: dict[str, list[Path]] = {}
    for file in texts:
        has_siblings = named[file.parent] - {None} > {"train"}
        names = possible_splits(file.relative_to(folder), has_siblings, wanted)
        label = next((SPLITS.get(name, name) for name in names if name in SPLITS or name == wanted), "train")
        found.setdefault(label, []).append(file)
    return found, [file for file in files if not kind(file) and file.name.lower() != "readme.md"]


def possible_splits(file: Path, has_siblings: bool, wanted: str) -> list[str]:
    """What could name the split of a file: its first folder, what stands before a shard's number, its own name."""
    folders = [part.lower() for part in file.parts[:-1]]
    names = folders[1:2] if folders[:1] == ["data"] else folders[:1]
    if shard := SHARD.fullmatch(_stem(file)):
        names.append(shard[1])
    if has_siblings or _stem(file) == wanted:
        names.append(_stem(file))
    return names


def _stem(file: Path) -> str:
    return os.path.splitext(uncompressed(file.name))[0].lower()


def files_in(folder: Path) -> Iterator[Path]:
    """Files in it and below, through links; nothing hidden, as .git, __MACOSX and .ipynb_checkpoints are."""
    seen = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        yield from (Path(here, name) for name in names if not name.startswith((".", "__")))


def card_lists_files(folder: str) -> bool:
    card = Path(folder, "README.md")
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if not text.startswith("---"):
        return False
    try:
        header = yaml.safe_load(text.split("---")[1])
    except yaml.YAMLError:
        return False
    configs = header.get("configs") if isinstance(header, dict) else None
    return any("data_files" in entry for entry in configs or [] if isinstance(entry, dict))


def listed(folder: str, config: str | None) -> dict[str, list[Path]]:
    """The files of each split that the card's configurations name, found as `datasets` finds them.

    Raises:
        RecipeError: no such configuration, or files that the card names and that are not there.
    """
    try:
        files = load_dataset_builder(folder, config).config.data_files or {}
    except (ValueError, FileNotFoundError) as error:
        raise RecipeError(f"dataset={folder!r}, dataset_config={config!r}: {' '.join(str(error).split())}") from error
    return {str(split): [Path(file) for file in files[split]] for split in files}


def _listed(folder: str, config: str | None) -> dict[str, list[Path]]:
    """The same by the names that splits have here, if all of them can be read."""
    found = {SPLITS.get(split, split): files for split, files in listed(folder, config).items()}
    if unread := [file for files in found.values() for file in files if not kind(file)]:
        raise RecipeError(f"dataset={folder!r}: {unread[0].name} has none of the endings {ENDINGS}")
    return found


def some(files: list[Path]) -> str:
    names = ", ".join(file.name for file in files[:3])
    return names if len(files) <= 3 else f"{names} and {len(files) - 3:,} more"
