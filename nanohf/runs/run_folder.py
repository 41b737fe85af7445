"""A run's folder: which stages are done, where checkpoints lie, and the ledger of what each stage cost.

runs/NAME/STAGE/            the stage's result, complete: written elsewhere and renamed, so it is there or it is not
runs/NAME/STAGE/stage.json  its numbers, and the recipe it was made with
runs/NAME/STAGE/optimizer/  the optimizer's state, where the recipe has keep_optimizer: true
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

from nanohf.errors import RecipeError
from nanohf.recipe.loading import STAGES
from nanohf.runs.checkpoint_files import flush, numbered

FREE_TO_CHANGE = {"run_dir", "push_to_hub", "hub_model_id", "hub_private_repo", "logging_steps", "report_to", "stage"}
FREE_TO_CHANGE |= {"keep_optimizer", "torch_compile"}
# In a stage's folder; not beside the weights, where some read every safetensors.
OPTIMIZER = "optimizer/state.safetensors"
PACKAGES = ("nanohf", "torch", "transformers", "trl", "accelerate", "datasets", "tokenizers")


def done(run_dir: str | Path, stage: str) -> dict | None:
    """What stage.json says of a finished stage, else None. evaluate: results.json, if of the stages as they are."""
    if stage == "evaluate":
        results = Path(run_dir) / "results.json"
        if not results.is_file():
            return None
        record = json.loads(results.read_text(encoding="utf-8"))
        scored = record["finished"]
        return record if all((done(run_dir, s) or {}).get("finished") == when for s, when in scored.items()) else None
    record = Path(run_dir) / stage / "stage.json"
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None


def checkpoints(run_dir: str | Path, stage: str) -> Path:
    return Path(run_dir) / "checkpoints" / stage


def claim(run_dir: str | Path, stage: str, recipe: dict) -> Path:
    """The stage's checkpoint folder, for this recipe: what was begun with other settings cannot go on with these.

    What was begun with others and has no checkpoint yet is dropped, its first measurements too.

    Raises:
        RecipeError: the folder holds checkpoints of a recipe with other values.
    """
    folder = checkpoints(run_dir, stage)
    note = folder / "recipe.json"
    wanted = {k: str(v) for k, v in recipe.items() if k not in FREE_TO_CHANGE}
    begun = json.loads(note.read_text(encoding="utf-8")) if note.is_file() and numbered(folder) else wanted
    if begun != wanted:
        changed = ", ".join(k for k in sorted({*begun, *wanted}) if begun.get(k) != wanted.get(k))
        raise RecipeError(
            f"{stage} was begun with another {changed}. Give the old value to go on, "
            f"or start it again: --from {stage} (or delete {folder})."
        )
    if os.environ.get("RANK", "0") == "0":
        if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != wanted:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(note, wanted)
    return folder


def finish(run_dir: str | Path, stage: str, record: dict, write: Callable[[Path], None]) -> Path:
    """Has `write(folder)` fill a temporary folder, adds stage.json, renames it to run_dir/stage, adds to the ledger.

    record: minutes, peak_memory (bytes), tokens, tokens_per_second, depth, vocab_size, parameters, device, metric,
    before, after, recipe.
    Checkpoints of the stage are removed last: killed at any point, the stage is either done or goes on.
    """
    final, partial = Path(run_dir) / stage, Path(run_dir) / f".{stage}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write(partial)
        record = stamped(stage, record)
        write_json(partial / "stage.json", record | {"versions": {name: version(name) for name in PACKAGES}})
        for path in (*partial.rglob("*"), partial):
            flush(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
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
    return _move_aside(Path(run_dir) / ("results.json" if stage == "evaluate" else stage))


def _move_aside(final: Path) -> Path | None:
    if not final.exists():
        return None
    target = final.parent / "previous" / f"{final.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    target.parent.mkdir(exist_ok=True)
    final.rename(target)
    return target


def resolve(run_dir: str | Path, model: str) -> str:
    """A stage's name to its folder in the run, even where there is another of that name; else a folder or a Hub id.

    Raises:
        RecipeError: a stage of this run that is not finished.
    """
    if model not in STAGES and ("/" in model or Path(model).is_dir()):
        return model
    if done(run_dir, model) is None:
        raise RecipeError(f"{run_dir} has no finished stage {model!r}, and it is no folder; run that stage first")
    return str(Path(run_dir) / model)


def write_json(path: Path, value: dict) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
