"""Recipes and records for tests that need one and not a whole run. Not a test."""

from pathlib import Path
from typing import Any

from nanohf.recipe.loading import Recipe
from nanohf.recipe.schemas import TokenizerConfig
from nanohf.runs import run_folder as runs
from nanohf.runs.stage_record import EvaluationRecord, StageRecord

FIGURES = {"minutes": 1.0, "metric": "loss", "before": 2.0, "after": 1.0}


def a_recipe(run_dir: str | Path, stage: str = "sft", **written: Any) -> Recipe:
    """A recipe of a stage in this run. What was written matters to a run's folder, not whether a stage could use it."""
    return Recipe(stage, Path(f"{stage}.yaml"), written, TokenizerConfig(run_dir=str(run_dir)))


def a_record(stage: str = "sft", **figures: Any) -> StageRecord:
    return StageRecord(**{"stage": stage, "finished": "now", "host": "here", "recipe": {}} | FIGURES | figures)


def write_results(run_dir: str | Path, stages: dict, recipe: dict | None = None, **finished: str) -> None:
    """results.json of stages as they are now, or of others that finished when it is said."""
    now = {stage: record.finished for stage in stages if (record := runs.done(run_dir, stage))}
    results = EvaluationRecord(stages, now | finished, "", 7.0, recipe or {})
    results.write(Path(run_dir) / runs.RESULTS)
