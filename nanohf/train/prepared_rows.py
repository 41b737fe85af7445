"""A mixture's rows, made once: by the first process of a machine, for its other processes, later starts and resumes.

runs/NAME/rows/STAGE/KEY/   an Arrow file for each source, parts.json, and the seal of checkpoints; removed with them

KEY is of everything that the rows depend on: the recipe's sources, their files or commits, the tokenizer with its chat
template, the settings, and the code. Other keys' rows, damaged ones and half-written ones are removed before new ones
are made. Waiting needs no process group, whose timeout is shorter than the work may take.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import datasets
from accelerate.utils import gather_object
from datasets import Dataset

import nanohf
from nanohf import console
from nanohf.data.chat_source import ChatSource
from nanohf.data.mixture import Given, Part, mixed, mixture_parts, repeated
from nanohf.data.source_state import source_state
from nanohf.errors import RecipeError
from nanohf.hardware.device import launched_processes
from nanohf.runs.checkpoint_files import SEAL, fault, put_in_place

PARTS, LOCK = "parts.json", ".lock"
HOURS = 12  # that a process waits for the first one
LOOK_EVERY = 0.2  # seconds
ROOMS = ("data", "tokenizer", "generation")  # whose code makes rows
PACKAGES = ("datasets", "jinja2", "pyarrow", "tokenizers", "transformers", "trl")  # trl: what it packs is kept here too
SETTINGS = ("max_length", "packing", "packing_strategy", "assistant_only_loss")


def prepared_rows(
    folder: Path, tokenizer, sources: list[ChatSource], held_out: list[ChatSource], args: Any
) -> tuple[Dataset, list[Given], list[Dataset]]:
    """The mixture as `data.mixture` makes it, and each held-out source's rows.

    Args:
        folder: of this stage's rows, on each machine its own or shared.

    Raises:
        RecipeError: as `mixture`; the process that makes the rows failed, or took too long.
    """
    mine = [content_key(tokenizer, sources, held_out, args)] if is_first_here() else []
    keys = gather_object(mine) if launched_processes() > 1 else mine
    final = folder / hashlib.sha256("".join(keys).encode()).hexdigest()[:16]

    def make(partial: Path) -> None:
        files = [partial / f"{i}.arrow" for i in range(len(sources) + len(held_out))]
        parts = mixture_parts(tokenizer, sources, args, files[: len(sources)])
        parts += mixture_parts(tokenizer, held_out, args, files[len(sources) :], measured=True)
        for part, source in zip(parts, [*sources, *held_out], strict=True):
            repeated(part, source)  # refuses a source that gives no row
        (partial / PARTS).write_text(json.dumps([part.left_out for part in parts]), encoding="utf-8")

    made_once(final, make)
    left_out = json.loads((final / PARTS).read_text(encoding="utf-8"))
    parts = [Part(Dataset.from_file(str(final / f"{i}.arrow")), what) for i, what in enumerate(left_out)]
    rows, given = mixed(parts[: len(sources)], sources, args.seed)
    return rows, given, [repeated(*pair)[0] for pair in zip(parts[len(sources) :], held_out, strict=True)]


def content_key(tokenizer, sources: list[ChatSource], held_out: list[ChatSource], args: Any) -> str:
    """A hash of all that the rows depend on. Files count by size and time of change, the Hub's data by commit."""
    every = [*sources, *held_out]
    content = {
        "sources": [asdict(source) | {"license": None} for source in every],
        "held_out": len(held_out),
        "data": {name: state or _cached(name) for name, state in source_state(s.dataset for s in every).items()},
        "tokenizer": [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map],
        "settings": {name: getattr(args, name) for name in SETTINGS},
        "code": _code(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _cached(dataset: str) -> dict | str:
    """For a Hub id whose commit is not known, as offline: its copies in the cache; without any, what never repeats."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / dataset.replace("/", "___")
    notes = sorted(folder.rglob("dataset_info.json"))
    return {str(note.relative_to(folder)): note.stat().st_mtime_ns for note in notes} or uuid4().hex


def _code() -> dict[str, str]:
    package = Path(nanohf.__file__).parent
    files = (file for room in ROOMS for file in (package / room).rglob("*.py"))
    return {str(file.relative_to(package)): file.read_text(encoding="utf-8") for file in files}


def is_first_here() -> bool:
    """Whether this process is the first of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def made_once(final: Path, make: Callable[[Path], None]) -> None:
    """Returns when the folder `final` is whole. Where it is not, the first process has `make(folder)` fill another.

    Raises:
        RecipeError: in a process that waits: the first one failed, or took longer than HOURS.
    """
    first, working, give_up = is_first_here(), False, time.monotonic() + HOURS * 3600
    final.parent.mkdir(parents=True, exist_ok=True)
    while fault(final):
        with _locked(final.parent / LOCK, fcntl.LOCK_EX if first else fcntl.LOCK_SH) as free:
            if first and free:
                if wrong := fault(final):
                    if (final / SEAL).exists():
                        console.warning(f"{final} is damaged ({wrong}): its rows are made again")
                    _make(final, make)
                return
            if working and free and fault(final):
                raise RecipeError(f"the process that made the rows in {final.parent} failed; its error is above")
            working |= not free
        if time.monotonic() > give_up:
            raise RecipeError(f"{final.parent}: no rows after {HOURS} hours of waiting for the process that makes them")
        time.sleep(LOOK_EVERY)
    console.progress(f"mixture: its rows are there already ({final})")


def _make(final: Path, make: Callable[[Path], None]) -> None:
    started = time.perf_counter()
    for old in final.parent.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    partial = final.parent / ".partial"
    partial.mkdir()
    try:
        make(partial)
        put_in_place(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    size = sum(file.stat().st_size for file in final.iterdir()) / 2**20
    console.progress(
        f"mixture: tokenised in {time.perf_counter() - started:,.1f} s; "
        f"{size:,.1f} MiB in {final} until the stage is finished"
    )


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[bool]:
    """Whether nobody else holds the lock. The kernel opens it when its process ends."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
