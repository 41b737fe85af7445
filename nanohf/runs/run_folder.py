"""A run's folder: which stages are done and where checkpoints lie.

runs/NAME/STAGE/            the stage's result, complete: written elsewhere and renamed, so it is there or it is not
runs/NAME/STAGE/stage.json  its record, with the recipe it was made with
runs/NAME/STAGE/optimizer/  the optimizer's state, where the recipe has keep_optimizer: true
runs/NAME/checkpoints/STAGE resumable state while it is at work
runs/NAME/rows/STAGE        its mixture in tokens while it is at work: see train.prepared_rows
runs/NAME/results.json      all stages by the same measures
runs/NAME/ledger.jsonl      one line per finished stage
"""

import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nanohf.errors import RecipeError
from nanohf.recipe.loading import Recipe
from nanohf.recipe.stage_names import STAGES
from nanohf.runs import data_used, ledger
from nanohf.runs.checkpoint_files import flush, numbered
from nanohf.runs.stage_record import EvaluationRecord, StageRecord, write_json

FREE_TO_CHANGE = {"run_dir", "push_to_hub", "hub_model_id", "hub_private_repo", "logging_steps", "report_to", "stage"}
FREE_TO_CHANGE |= {"keep_optimizer", "torch_compile", "license", "hub_license", "trackio_space_id", "force"}
# In a stage's folder; not beside the weights, where some read every safetensors.
OPTIMIZER = "optimizer/state.safetensors"
RESULTS = "results.json"
PACKAGES = ("nanohf", "torch", "transformers", "trl", "accelerate", "datasets", "tokenizers")


def done(run_dir: str | Path, stage: str) -> StageRecord | None:
    """The record of a finished stage, else None.

    Raises:
        RecipeError: a record that this version cannot read.
    """
    record = Path(run_dir) / stage / "stage.json"
    return StageRecord.read(record) if record.is_file() else None


def evaluated(run_dir: str | Path) -> EvaluationRecord | None:
    """The run's results, if they are of the stages as they are now, else None."""
    path = Path(run_dir) / RESULTS
    if not path.is_file():
        return None
    results = EvaluationRecord.read(path)
    now = {stage: record.finished for stage in results.finished if (record := done(run_dir, stage))}
    return results if now == results.finished else None


def is_done(run_dir: str | Path, stage: str) -> bool:
    return bool(evaluated(run_dir) if stage == "evaluate" else done(run_dir, stage))


def checkpoints(run_dir: str | Path, stage: str) -> Path:
    return Path(run_dir) / "checkpoints" / stage


def rows(run_dir: str | Path, stage: str) -> Path:
    return Path(run_dir) / "rows" / stage


def changed_keys(had: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The recipe keys that differ and may not be changed between a stage's start and its end."""
    keys = sorted({*had, *wanted} - FREE_TO_CHANGE)
    return [key for key in keys if _without_licences(had.get(key)) != _without_licences(wanted.get(key))]


def _without_licences(value: Any) -> Any:
    """A mixture without what its sources say of their licences, which may be added while a stage is at work."""
    value = _as_json(value)
    if not isinstance(value, list):
        return value
    return [{k: v for k, v in one.items() if k != "license"} if isinstance(one, dict) else one for one in value]


def _as_json(value: Any) -> Any:
    """As it comes back from a file: then 1 and 1.0 are equal, and so are a tuple and a list."""
    return json.loads(json.dumps(value, default=str))


def claim(recipe: Recipe) -> Path:
    """The stage's checkpoint folder, for this recipe: what was begun with other settings cannot continue with these.

    What was begun with others and has no checkpoint yet is dropped, its first measurements too. What the stage is made
    from is noted there, with its licences, for the record.

    Raises:
        RecipeError: the folder holds checkpoints of a recipe with other values.
    """
    folder = checkpoints(recipe.run_dir, recipe.stage)
    note = folder / "recipe.json"
    begun = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
    changed = changed_keys(begun, recipe.written) if begun is not None else []
    if changed and numbered(folder):
        raise RecipeError(
            f"{recipe.stage} was begun with another {', '.join(changed)}. Give the old value to continue, "
            f"or start it again: --from {recipe.stage} (or delete {folder})."
        )
    if os.environ.get("RANK", "0") == "0":
        if changed:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        data_used.note(folder, recipe.stage, recipe.written, recipe.run_dir)
        write_json(note, recipe.written)
    return folder


def finish(recipe: Recipe, figures: dict[str, Any], write: Callable[[Path], Any]) -> Path:
    """Has `write(folder)` fill a temporary folder, adds stage.json, renames it to run_dir/STAGE, adds to the ledger.

    figures: those of StageRecord that the stage knows. The stage's rows and checkpoints are removed last: killed at any
    point, it is either done or resumes.
    """
    run_dir, stage = recipe.run_dir, recipe.stage
    final, partial = run_dir / stage, run_dir / f".{stage}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write(partial)
        record = StageRecord(
            stage=stage,
            finished=now(),
            host=socket.gethostname(),
            recipe=recipe.written,
            data=[asdict(data) for data in data_used.noted(checkpoints(run_dir, stage))],
            hub_license=recipe.written.get("hub_license"),
            versions={name: version(name) for name in PACKAGES},
            **figures,
        )
        record.write(partial / "stage.json")
        for path in (*partial.rglob("*"), partial):
            flush(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _move_aside(final)
    partial.rename(final)
    ledger.append(run_dir, record)
    for unneeded in (rows(run_dir, stage), checkpoints(run_dir, stage)):
        shutil.rmtree(unneeded, ignore_errors=True)
    return final


def finish_evaluation(recipe: Recipe, figures: dict[str, Any]) -> EvaluationRecord:
    """results.json and its line in the ledger. figures: those of EvaluationRecord."""
    record = EvaluationRecord(host=socket.gethostname(), recipe=recipe.written, **figures)
    record.write(recipe.run_dir / RESULTS)
    ledger.append_evaluation(recipe.run_dir, record, now())
    return record


def note_licence(run_dir: str | Path, stage: str, licence: str) -> None:
    """Writes into the stage's record under which licence its user publishes it."""
    path = Path(run_dir) / stage / "stage.json"
    replace(StageRecord.read(path), hub_license=licence).write(path)


def note_push(run_dir: str | Path, stage: str, repo_id: str) -> None:
    """Writes into the stage's record where it was pushed to."""
    path = Path(run_dir) / stage / "stage.json"
    replace(StageRecord.read(path), pushed_to=repo_id).write(path)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def set_aside(run_dir: str | Path, stage: str) -> Path | None:
    """Moves a finished stage's folder to previous/, where nothing looks for it, and drops its checkpoints."""
    shutil.rmtree(checkpoints(run_dir, stage), ignore_errors=True)
    return _move_aside(Path(run_dir) / (RESULTS if stage == "evaluate" else stage))


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
    if model not in STAGES and ("/" in model or os.path.isdir(model)):
        return model
    if done(run_dir, model) is None:
        raise RecipeError(f"{run_dir} has no finished stage {model!r}, and there is no such folder. Run it first.")
    return str(Path(run_dir) / model)
