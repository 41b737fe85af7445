"""Pushes finished stages of a run, each to a Hub repo of its own.

nanohf push runs/demo --to USER/NAME            # every finished stage, as USER/NAME-STAGE
nanohf push runs/demo sft grpo --to USER/NAME --private
"""

from pathlib import Path

from nanohf import console
from nanohf.data.licences import wrong_licence
from nanohf.errors import PushError, RecipeError
from nanohf.hub.licensing import check_push
from nanohf.hub.publish import push_stage, stage_repo
from nanohf.recipe.stage_names import RESULT_STAGES
from nanohf.runs import run_folder as runs


def push(run_dir: str, stages: list[str], to: str, private: bool | None = None, licence: str | None = None) -> int:
    """Exit status 0, or 1 if a push failed: the other stages have their turn all the same."""
    stages = stages or [stage for stage in RESULT_STAGES if runs.done(run_dir, stage)]
    check(run_dir, stages, to, licence)
    failed = [stage for stage in stages if not pushed(run_dir, stage, to, private, licence)]
    return int(bool(failed))


def check(run_dir: str, stages: list[str], to: str, licence: str | None = None) -> None:
    """Everything the user can fix, at once, before anything is sent.

    Raises:
        RecipeError: no such run, nothing finished in it, unknown or unfinished stages, a bad repo id,
            or data whose licence asks for the user's decision.
    """
    problems = wrong_licence("--license", licence)
    if not Path(run_dir).is_dir():
        problems.append(f"{run_dir} is not a folder. Give a run's folder, such as runs/demo.")
    elif not stages:
        problems.append(f"{run_dir} has no finished stage; run one first: nanohf run ... --name {Path(run_dir).name}")
    for stage in stages:
        if stage not in RESULT_STAGES:
            problems.append(f"unknown stage {stage!r}. Stages: {', '.join(RESULT_STAGES)}.")
        elif Path(run_dir).is_dir() and runs.done(run_dir, stage) is None:
            problems.append(f"stage {stage} of {run_dir} is not finished; run it first: nanohf run ... --until {stage}")
    try:
        stage_repo(to, max(RESULT_STAGES, key=len))
    except ValueError as error:
        problems.append(f"{error}. Give the user and the name's beginning, such as --to alice/nanohf-d4.")
    if problems := problems or check_push(run_dir, stages, licence):
        raise RecipeError(problems)


def pushed(run_dir: str, stage: str, to: str, private: bool | None, licence: str | None = None) -> bool:
    """Whether the stage is on the Hub now; if not, the reason is printed and the next stage has its turn."""
    try:
        push_stage(run_dir, stage, stage_repo(to, stage), private, licence=licence)
    except PushError as error:
        console.error(str(error))
        return False
    return True
