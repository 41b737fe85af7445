"""A run's folder: which stages are done, where checkpoints lie, and the ledger of what each stage cost.

runs/NAME/STAGE/            the stage's result, complete: written elsewhere and renamed, so it is there or it is not
runs/NAME/STAGE/stage.json  its numbers, and the recipe it was made with
runs/NAME/checkpoints/STAGE resumable state while it is at work
runs/NAME/ledger.jsonl      one line for each finished stage
"""

import json
import os
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from nanohf.recipe import RecipeError

PACKAGES = ("nanohf", "torch", "transformers", "trl", "accelerate", "datasets", "tokenizers")


def done(run_dir: str | Path, stage: str) -> dict | None:
    """What stage.json says of a finished stage, else None."""
    record = Path(run_dir) / stage / "stage.json"
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None


def checkpoints(run_dir: str | Path, stage: str) -> Path:
    return Path(run_dir) / "checkpoints" / stage


def finish(run_dir: str | Path, stage: str, record: dict, write: Callable[[Path], None]) -> Path:
    """Has `write(folder)` fill a temporary folder, adds stage.json, renames it to run_dir/stage, adds to the ledger.

    record: minutes, tokens, tokens_per_second, depth, vocab_size, parameters, device, metric, before, after, recipe.
    Checkpoints of the stage are removed last: killed at any point, the stage is either done or goes on.
    """
    final, partial = Path(run_dir) / stage, Path(run_dir) / f".{stage}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    record = stamped(stage, record)
    write_json(partial / "stage.json", record | {"versions": {name: version(name) for name in PACKAGES}})
    _move_aside(final)
    partial.rename(final)
    add_to_ledger(run_dir, record)
    shutil.rmtree(checkpoints(run_dir, stage), ignore_errors=True)
    return final


def stamped(stage: str, record: dict) -> dict:
    """The record with when and where it was made."""
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    return {"stage": stage, "finished": finished, **record, "host": socket.gethostname()}


def add_to_ledger(run_dir: str | Path, record: dict) -> None:
    with (Path(run_dir) / "ledger.jsonl").open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps({k: v for k, v in record.items() if k != "recipe"}) + "\n")


def set_aside(run_dir: str | Path, stage: str) -> Path | None:
    """Moves a finished stage's folder to previous/, where nothing looks for it, and drops its checkpoints."""
    shutil.rmtree(checkpoints(run_dir, stage), ignore_errors=True)
    return _move_aside(Path(run_dir) / stage)


def _move_aside(final: Path) -> Path | None:
    if not final.exists():
        return None
    target = final.parent / "previous" / f"{final.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    target.parent.mkdir(exist_ok=True)
    final.rename(target)
    return target


def resolve(run_dir: str | Path, model: str) -> str:
    """A stage's name inside the run to its folder; a folder or a Hub id stays what it is.

    Raises:
        RecipeError: a stage of this run that is not finished.
    """
    if "/" in model or Path(model).is_dir():
        return model
    if done(run_dir, model) is None:
        raise RecipeError(f"{run_dir} has no finished stage {model!r}, and it is no folder; run that stage first")
    return str(Path(run_dir) / model)


def write_json(path: Path, value: dict) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
