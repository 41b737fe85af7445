"""A run's stages from the Hub into an empty run folder, where `nanohf run` continues with the next one.

nanohf run recipes/d2 --from-hub USER/NAME                    # every stage there is: USER/NAME-tokenizer and so on
nanohf run recipes/d2 --from-hub USER/NAME-midtrain           # not beyond midtrain
nanohf run recipes/d2 --from-hub USER/NAME@checkpoint-3000    # and pretraining from the checkpoint of that step

Safetensors, JSON and texts are fetched, and nothing in them is run: what others have pushed cannot do harm here.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from nanohf import console
from nanohf.data.hub_names import split_revision
from nanohf.errors import NanoHFError, RecipeError
from nanohf.hub.card_text import hub_id
from nanohf.recipe.stage_names import MODEL_STAGES, RESULT_STAGES
from nanohf.runs import ledger
from nanohf.runs import run_folder as runs
from nanohf.runs.checkpoint_files import SEAL, fault, numbered
from nanohf.runs.stage_record import StageRecord

SAFE = ("*.safetensors", "*.json", "*.jinja", "*.py", "*.md", "*.yaml", "*.svg")
CHECKPOINT = "checkpoint"  # the folder in a stage's repo, at the revision checkpoint-STEP


def fetch(source: str, run_dir: Path) -> str:
    """Fetches what is not there yet, and returns the last stage that is finished now.

    source: USER/NAME or USER/NAME-STAGE, either with @REVISION.

    Raises:
        RecipeError: there is nothing of that name, or something that nanohf does not read.
        NanoHFError: the Hub cannot be reached.
    """
    name, revision = split_revision(source)
    end = next((stage for stage in RESULT_STAGES if name.endswith(f"-{stage}")), None)
    base = name.removesuffix(f"-{end}")
    if base.count("/") != 1:
        raise RecipeError(f"--from-hub {source}: write USER/NAME, USER/NAME-STAGE or USER/NAME@checkpoint-STEP")
    wanted = RESULT_STAGES[: RESULT_STAGES.index(end) + 1 if end else None]
    if at_step := bool(revision and revision.startswith(f"{CHECKPOINT}-")):
        if end not in (None, "pretrain"):
            raise RecipeError(f"--from-hub {source}: only pretraining's checkpoints can be fetched, others are pickled")
        wanted = ("tokenizer",)
    last = fetch_stages(base, wanted, None if at_step else revision, run_dir)
    if last is None or (last != end and end and not at_step):
        looked_for = f"{base}-{end or wanted[0]}"
        raise RecipeError(
            f"--from-hub {source}: there is no {looked_for} on the Hub{f' at {revision}' if revision else ''}, or this "
            "token may not read it. Log in if it is private: hf auth login"
        )
    if at_step:
        fetch_checkpoint(f"{base}-pretrain", str(revision), run_dir)
    return last


def model_folder(source: str) -> str:
    """A folder as it is; a Hub id, also at a revision, as the folder it is downloaded to.

    Raises:
        RecipeError: there is neither.
        NanoHFError: the Hub cannot be reached.
    """
    name, revision = split_revision(source)
    if not hub_id(name):
        return source
    with hub_said(name):
        try:
            return snapshot_download(name, revision=revision, allow_patterns=list(SAFE))
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise RecipeError(f"{source}: no such folder, and no such model on the Hub") from error


def fetch_stages(base: str, stages: tuple[str, ...], revision: str | None, run_dir: Path) -> str | None:
    """The last of the stages that is finished now, if any. One that is older than the stage before it is not taken."""
    last: StageRecord | None = None
    for stage in stages:
        record = runs.done(run_dir, stage) or fetch_stage(f"{base}-{stage}", stage, revision, run_dir, last)
        last = record or last
    return last.stage if last else None


def fetch_stage(
    repo_id: str, stage: str, revision: str | None, run_dir: Path, before: StageRecord | None
) -> StageRecord | None:
    """Puts the repo's content into run_dir/STAGE, complete or not at all. None: there is no such repo, or it is older.

    Raises:
        RecipeError: it is not a finished stage of that name, or has no safetensors.
    """
    with hub_said(repo_id):
        try:
            found = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(SAFE)))
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None
    if not (found / "stage.json").is_file():
        return None  # its checkpoints are there, but it is not finished
    record = replace(StageRecord.read(found / "stage.json"), fetched_from=repo_id)
    if record.stage != stage:
        raise RecipeError(f"{repo_id} holds the stage {record.stage}, not {stage}")
    if stage in MODEL_STAGES and not list(found.glob("*.safetensors")):
        raise RecipeError(f"{repo_id} has no weights in safetensors; nanohf reads no others from the Hub")
    if before and record.finished < before.finished:
        console.warning(f"{repo_id} is left out: it was finished before {before.stage}, so it was not made from it")
        return None
    partial = run_dir / f".{stage}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(found, partial, ignore=shutil.ignore_patterns(CHECKPOINT))
    record.write(partial / "stage.json")
    partial.rename(run_dir / stage)
    ledger.append(run_dir, record)
    console.progress(f"{stage}: fetched from {repo_id}")
    return record


def fetch_checkpoint(repo_id: str, revision: str, run_dir: Path) -> None:
    """Puts the checkpoint at this revision where pretraining resumes from, unless it has one there already.

    Raises:
        RecipeError: there is none, it has files of other kinds, or it is not as it was written.
    """
    folder = runs.checkpoints(run_dir, "pretrain")
    if runs.done(run_dir, "pretrain") or numbered(folder):
        return
    with hub_said(repo_id):
        try:
            kinds = [f"{CHECKPOINT}/*.json", f"{CHECKPOINT}/*.safetensors"]
            found = Path(snapshot_download(repo_id, revision=revision, allow_patterns=kinds)) / CHECKPOINT
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise RecipeError(f"--from-hub: there is no {repo_id}@{revision} on the Hub") from error
    if not (found / SEAL).is_file():
        raise RecipeError(f"{repo_id}@{revision} has no {CHECKPOINT}/{SEAL}: it is not a checkpoint of nanohf")
    names = json.loads((found / SEAL).read_text(encoding="utf-8"))
    if others := [name for name in names if not name.endswith((".json", ".safetensors"))]:
        raise RecipeError(
            f"{repo_id}@{revision} has {', '.join(others)}: only safetensors and JSON are read from the Hub"
        )
    if damage := fault(found):
        raise RecipeError(f"{repo_id}@{revision} is damaged: {damage}")
    step = int(json.loads((found / "progress.json").read_text(encoding="utf-8"))["step"])
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".step-{step:08d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(found, partial)
    partial.rename(folder / f"step-{step:08d}")
    console.progress(f"pretrain: its checkpoint of step {step:,} is fetched from {repo_id}")


@contextmanager
def hub_said(repo_id: str) -> Iterator[None]:
    """What keeps a repo from being read, in one line."""
    try:
        yield
    except HFValidationError as error:
        raise RecipeError(f"--from-hub: {error}") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        why = "this token may not read it. Log in: hf auth login" if status in (401, 403) else f"status {status}"
        raise NanoHFError(f"{repo_id} cannot be read from the Hub: {why}") from error
    except (OSError, httpx.HTTPError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise NanoHFError(f"{repo_id} cannot be fetched: {why}") from error
