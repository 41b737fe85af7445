"""Stages that are finished without being run: records as the stages leave them, of recipes of a few keys. Not a test."""

from collections.abc import Callable
from pathlib import Path

from nanohf.recipe.loading import Recipe
from nanohf.recipe.schemas import TokenizerConfig
from nanohf.runs import run_folder as runs
from nanohf.runs.stage_record import EvaluationRecord

FIGURES = {"minutes": 1.0, "metric": "loss", "before": 2.0, "after": 1.0}


def recipe_of(run_dir: Path, stage: str = "sft", written: dict | None = None, **publishing) -> Recipe:
    """A recipe of these keys; publishing: push_to_hub, hub_model_id, hub_private_repo."""
    return Recipe(stage, Path(f"{stage}.yaml"), written or {}, TokenizerConfig(run_dir=str(run_dir), **publishing))


def finish(
    run_dir: Path, stage: str = "sft", write: Callable[[Path], object] = lambda folder: None,
    written: dict | None = None, **figures,
) -> Path:  # fmt: skip
    return runs.finish(recipe_of(run_dir, stage, written), FIGURES | figures, write)


def evaluate(run_dir: Path, stages: dict[str, dict], finished: dict[str, str] | None = None) -> EvaluationRecord:
    """results.json with these scores. finished: as the stages are now, by default."""
    finished = finished or {stage: runs.done(run_dir, stage).finished for stage in stages}
    figures = {"stages": stages, "finished": finished, "conversation": "", "minutes": 7.0}
    return runs.finish_evaluation(recipe_of(run_dir, "evaluate"), figures)
