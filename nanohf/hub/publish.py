"""A stage's folder to a Hub repo, in one commit; and its card, which a folder has even if it is never pushed.

nanohf push runs/NAME grpo --to USER/NAME      # makes USER/NAME-grpo
"""

import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from nanohf import console
from nanohf.data.hub_names import split_revision
from nanohf.errors import PushError
from nanohf.hub.card import card, eval_results_yaml, hub_id, public, recipe_yaml, started_with
from nanohf.hub.licensing import check_push
from nanohf.recipe.stage_names import STAGES
from nanohf.runs import curves
from nanohf.runs import run_folder as runs
from nanohf.runs.data_used import completed
from nanohf.runs.stage_record import EvaluationRecord, StageRecord

PUBLISHED = {".json", ".safetensors", ".py", ".jinja", ".md", ".yaml", ".svg"}
RECIPES = "recipe"
EVAL_RESULTS = ".eval_results/nanohf.yaml"
ADVICE = {
    401: "Log in with `hf auth login`, or set HF_TOKEN to a token that may write.",
    403: "The token may not write there: use one with write access, or another USER.",
}


def push_stage(
    run_dir: str | Path,
    stage: str,
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
    licence: str | None = None,
) -> str:
    """Makes the repo if need be, and the run's stage its content: one commit, weights of an earlier push removed.

    private: None leaves it to the organisation's default; an existing repo stays what it is. licence: under which the
    user publishes it; None: what was decided before, or the strictest of its data's.

    Raises:
        PushError: the stage is not finished, its data's licence needs the user's decision, or the Hub cannot be
            reached or says no.
    """
    folder = Path(run_dir) / stage
    if runs.done(run_dir, stage) is None:
        raise PushError(f"{run_dir} has no finished stage {stage!r}. Run it first: nanohf run ... --until {stage}")
    if refused := check_push(run_dir, [stage], licence):
        raise PushError("\n".join(refused))
    if licence:
        runs.note_licence(run_dir, stage, licence)
    record = StageRecord.read(folder / "stage.json")
    write_card(folder, stage, repo_id)
    api = HfApi(token=token)
    with _safely(folder, repo_id, token):
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        write_card(folder, stage, url.repo_id)  # now with the user's name
        files = {path.relative_to(folder).as_posix(): path for path in published(folder)}
        operations: list[CommitOperationAdd | CommitOperationDelete]
        operations = [CommitOperationAdd(name, path) for name, path in files.items() if name != "stage.json"]
        operations.append(CommitOperationAdd("stage.json", json.dumps(public(record), indent=2).encode() + b"\n"))
        stale = [name for name in api.list_repo_files(url.repo_id) if name not in files and _ours(name)]
        operations += [CommitOperationDelete(name) for name in stale]
        api.create_commit(url.repo_id, operations, commit_message=_message(record))
    runs.note_push(run_dir, stage, url.repo_id)
    console.progress(f"pushed {folder} to {url}")
    return str(url)


def update_card(run_dir: str | Path, stage: str, token: str | None = None) -> str | None:
    """Writes the card again, as after an evaluation, and pushes it with .eval_results to where the stage was pushed to.

    A card that says nothing new is not pushed. Returns the repo's id; None: it never was pushed, and only the folder's
    card is written.

    Raises:
        PushError: the stage is not finished, or the Hub cannot be reached or says no.
    """
    folder = Path(run_dir) / stage
    if (record := runs.done(run_dir, stage)) is None:
        raise PushError(f"{run_dir} has no finished stage {stage!r}, so there is no card to update")
    target, readme = record.pushed_to, folder / "README.md"
    before = readme.read_text(encoding="utf-8") if readme.is_file() else None
    write_card(folder, stage, target or f"{Path(run_dir).resolve().name}-{stage}")
    if target is None or readme.read_text(encoding="utf-8") == before:
        return target
    api = HfApi(token=token)
    with _safely(folder, target, token):
        operations: list[CommitOperationAdd | CommitOperationDelete]
        operations = [CommitOperationAdd("README.md", readme)]
        if (folder / EVAL_RESULTS).is_file():
            operations.append(CommitOperationAdd(EVAL_RESULTS, folder / EVAL_RESULTS))
        elif api.file_exists(target, EVAL_RESULTS):
            operations.append(CommitOperationDelete(EVAL_RESULTS))
        api.create_commit(target, operations, commit_message=f"{stage}: card after evaluation")
    return target


def write_card(folder: Path, stage: str, repo_id: str) -> None:
    """README.md, curves, recipes, and .eval_results where a result may stand there, from the run's own records."""
    record = completed(folder)
    results = results_of(folder.parent, record)
    chain = write_recipes(folder, record)
    text = card(record, results, repo_id, base_model(folder.parent, record), chain)
    (folder / "README.md").write_text(text, encoding="utf-8")
    if picture := curves.draw(record):
        (folder / curves.FILE).write_text(picture, encoding="utf-8")
    entries = folder / EVAL_RESULTS
    if (content := eval_results_yaml(stage, results)) is not None:
        entries.parent.mkdir(exist_ok=True)
        entries.write_text(content, encoding="utf-8")
    else:
        entries.unlink(missing_ok=True)


def write_recipes(folder: Path, record: StageRecord) -> list[str]:
    """recipe/STAGE.yaml of the stage and of those of its run that it was made from, whose names are returned."""
    records = [record]
    for stage in reversed(STAGES[: STAGES.index(record.stage)]):
        if stage == started_with(records[0]) and (parent := runs.done(folder.parent, stage)):
            records.insert(0, parent)
    shutil.rmtree(folder / RECIPES, ignore_errors=True)
    (folder / RECIPES).mkdir()
    for one in records:
        (folder / RECIPES / f"{one.stage}.yaml").write_text(recipe_yaml(one) + "\n", encoding="utf-8")
    return [one.stage for one in records]


def results_of(run_dir: Path, record: StageRecord) -> EvaluationRecord | None:
    """The run's results, unless they are of a predecessor of this stage."""
    path = run_dir / runs.RESULTS
    results = EvaluationRecord.read(path) if path.is_file() else None
    return results if results and results.finished.get(record.stage) == record.finished else None


def base_model(run_dir: Path, record: StageRecord) -> str | None:
    """The Hub id of what the stage was made from, if it is on the Hub."""
    if record.stage in ("tokenizer", "pretrain"):
        return None
    source = record.recipe.get("model_name_or_path", "pretrain")
    if source in STAGES:
        parent = runs.done(run_dir, source)
        return parent.pushed_to or parent.fetched_from if parent else None
    return hub_id(split_revision(source)[0])


def published(folder: Path) -> list[Path]:
    """The files that go to the Hub: by their endings, hidden ones only if they are ours, no optimizer state."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix in PUBLISHED]
    files = [p for p in files if p != folder / runs.OPTIMIZER]
    return [p for p in files if not p.relative_to(folder).as_posix().startswith(".") or p == folder / EVAL_RESULTS]


def stage_repo(to: str, stage: str) -> str:
    """USER/NAME to USER/NAME-STAGE.

    Raises:
        ValueError: not USER/NAME, or a name the Hub does not take.
    """
    if to.count("/") != 1 or not all(to.split("/")):
        raise ValueError(f"--to {to!r} is not USER/NAME")
    validate_repo_id(f"{to}-{stage}")
    return f"{to}-{stage}"


def _ours(name: str) -> bool:
    """Files in a repo that an earlier push left and that would be read instead of, or beside, what is pushed now."""
    weights = name.endswith((".safetensors", ".bin", ".index.json")) or name.startswith("adapter_")
    return (weights and "/" not in name) or name == EVAL_RESULTS


def _message(record: StageRecord) -> str:
    return f"{record.stage}: {record.metric} {record.before:.4g} -> {record.after:.4g}"


def advice(error: Exception, status: int | None) -> str:
    if status in ADVICE:
        return f"{ADVICE[status]} "
    unreachable = isinstance(error, httpx.TransportError | ConnectionError | TimeoutError)
    return "The Hub could not be reached. " if unreachable else ""


@contextmanager
def _safely(folder: Path, repo_id: str, token: str | None) -> Iterator[None]:
    """Whatever the Hub or the network does, the result is on disk: say so and how to push it, without the token."""
    try:
        yield
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError, RuntimeError) as error:  # Runtime: of hf_xet
        lines = [line for line in str(error).splitlines() if not line.startswith("For more information")]
        reason = " ".join(" ".join(lines).split()) or type(error).__name__
        status = getattr(getattr(error, "response", None), "status_code", None)
        if get_token() is None and token is None:
            status = 401
        stage, to = folder.name, repo_id if "/" in repo_id else f"USER/{repo_id}"
        message = (
            f"pushing {folder} to {repo_id} failed: {reason}\n{advice(error, status)}"
            f"The result is safe in {folder}. Push it later:\n"
            f"  nanohf push {shlex.quote(str(folder.parent))} {stage} --to {to.removesuffix(f'-{stage}')}"
        )
        if not to.endswith(f"-{stage}"):
            message += f"\nwhich makes {to}-{stage}."
        for secret in filter(None, (token, get_token())):
            message = message.replace(secret, "[token]")
        raise PushError(message) from None
