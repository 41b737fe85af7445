"""`nanohf run`: the stages in order, each through `accelerate launch`. What is done is skipped, what is not resumes.

Stages finish; the pipeline publishes. A push that fails costs a line at the end and the exit status, no stage.
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from nanohf import console
from nanohf.errors import PushError, RecipeError
from nanohf.hub.paths import without_paths
from nanohf.recipe.loading import Recipe
from nanohf.recipe.recipe_folder import find_recipe_folder, load_all, run_folder, shipped, stage_arguments
from nanohf.recipe.source_errors import check_sources
from nanohf.recipe.stage_names import CHAT_STAGES, STAGES, stages_between
from nanohf.recipe.yaml_file import read_mapping
from nanohf.report.run_report import write_report
from nanohf.runs import run_folder as runs
from nanohf.runs.checkpoint_files import numbered
from nanohf.runs.disk_full import disk_full_said
from nanohf.runs.lock import run_lock
from nanohf.scaling.step_batch import StepBatch

MODULES = {stage: f"nanohf.stages.{'sft' if stage in CHAT_STAGES else stage}" for stage in STAGES}


def run(
    recipe_dir: str,
    name: str | None = None,
    overrides: list[str] | None = None,
    push: str | None = None,
    first: str | None = None,
    last: str | None = None,
    accelerate_config: str | None = None,
    licence: str | None = None,
    from_hub: str | None = None,
) -> int:
    """Runs the recipes of a folder; returns the exit status: 0, a failed stage's, or 1 if only a push failed.

    from_hub: USER/NAME[@REVISION], whose stages are fetched first: see `nanohf.hub.fetch`.

    Raises:
        RecipeError: anything wrong with the recipes or the arguments, all of it at once, before any stage starts.
    """
    if from_hub and first:
        raise RecipeError(f"--from {first} and --from-hub: give one. --from-hub USER/NAME-STAGE says where to continue")
    folder = find_recipe_folder(recipe_dir)
    run_dir = run_folder(name or folder.name)
    stages = stages_between(first, last)
    arguments = {stage: stage_arguments(folder, run_dir, stage, overrides or [], push, licence) for stage in stages}
    recipes = load_all(arguments)
    launcher = launch_command(accelerate_config)
    machine = machine_rank(launcher)
    if from_hub and int(accelerate_settings(launcher).get("num_machines") or 1) > 1:
        raise RecipeError("--from-hub fetches on one machine. Run one stage there first, and then all machines without")
    if machine:
        console.progress(f"machine {machine}: the first one locks {run_dir}, publishes and reports")
        with disk_full_said(run_dir):
            return work(recipes, arguments, launcher, first, machine)
    with disk_full_said(run_dir), run_lock(run_dir):
        if from_hub:
            from nanohf.hub.fetch import fetch

            fetched = STAGES.index(fetch(from_hub, run_dir))
            left = [stage for stage in stages if runs.is_done(run_dir, stage) or STAGES.index(stage) > fetched]
            recipes = {stage: recipes[stage] for stage in left}  # the model of the last one is all that the next needs
            if not left:
                raise RecipeError(f"--until {last}: nothing is left to do after {STAGES[fetched]}, which is on the Hub")
        return work(recipes, arguments, launcher, first)


def work(
    recipes: dict[str, Recipe],
    arguments: dict[str, list[str]],
    launcher: list[str],
    first: str | None,
    machine: int = 0,
) -> int:
    """The stages, in a folder that is ours alone. Of several machines the first one alone changes it."""
    stages, run_dir = list(recipes), next(iter(recipes.values())).run_dir
    todo = [stage for stage in stages if first or not runs.is_done(run_dir, stage)]
    check_batches(recipes, todo, launched_by(launcher), bool(first))
    if accelerate_settings(launcher).get("distributed_type") == "FSDP" and any(recipes[s].trl_config for s in todo):
        raise RecipeError("FSDP is for the pretrain stage only: add --until pretrain, and run the others without it")
    check(recipes, todo)

    for stage in STAGES[STAGES.index(first) :] if first and not machine else ():
        if old := runs.set_aside(run_dir, stage):
            console.progress(f"{stage}: done again; the old result is in {old}")
    unpublished: list[str] = []
    for number, stage in enumerate(stages, 1):
        console.progress(f"\n[{number}/{len(stages)}] {stage}")
        if not first and runs.is_done(run_dir, stage):
            skip(recipes[stage])
        elif status := launch([*launcher, "-m", MODULES[stage], *arguments[stage]]):
            again = "the same command without --from resumes" if first else "the same command resumes"
            console.error(f"{stage} ended with exit status {status}; {again} from here")
            close(run_dir, unpublished, recipes)
            return status
        elif not runs.is_done(run_dir, stage):  # told to stop, and did
            return close(run_dir, unpublished, recipes)
        unpublished += [] if machine else publish(stage, recipes)
    if not machine:
        console.result(f"\n{write_report(run_dir)}")
    return close(run_dir, unpublished, recipes)


def check(recipes: dict[str, Recipe], todo: list[str]) -> None:
    """Everything that can be known before the first stage: sources, licences, TRL's own checks, memory, disk.

    Raises:
        RecipeError: what would end one of the stages `todo`.
    """
    check_inputs(recipes, todo)
    check_sources({stage: recipes[stage] for stage in todo})
    check_licences(recipes, todo)
    check_carried(recipes, todo)
    if with_trl := [recipes[stage] for stage in todo if recipes[stage].trl_config]:
        from nanohf.train.trl_arguments import check_arguments

        check_arguments(with_trl)
    check_resources(recipes, todo)


def check_batches(recipes: dict[str, Recipe], todo: list[str], processes: int, afresh: bool = False) -> None:
    """Refuses batches that the processes cannot share. A stage that resumes has its checkpoint's batch."""
    errors = []
    for stage in todo:
        recipe = recipes[stage]
        if numbered(runs.checkpoints(recipe.run_dir, stage)) and not afresh:
            continue
        try:
            if recipe.trl:
                rows = recipe.trl.per_device_train_batch_size
                recipe.step_batch.accumulation(rows, processes)
                if generation := getattr(recipe.trl, "generation_batch_size", None):
                    StepBatch("generation_batch_size", generation).accumulation(rows, processes)
            elif stage == "pretrain" and (batch := pretraining_batch(recipes)):
                recipe.settings.accumulation(batch, processes)
        except RecipeError as error:
            errors += [f"{recipe.path}: {message}" for message in error.messages]
    if errors:
        raise RecipeError(errors)


def pretraining_batch(recipes: dict[str, Recipe]) -> int | None:
    """Tokens of a step, given or by the horizon; None: by the horizon of a vocabulary that is not known yet."""
    recipe = recipes["pretrain"]
    if recipe.settings.batch_tokens:
        return recipe.settings.batch_tokens
    if done := runs.done(recipe.run_dir, "tokenizer"):
        vocab_size = done.vocab_size
    else:
        vocab_size = recipes["tokenizer"].settings.vocab_size if "tokenizer" in recipes else None
    return recipe.settings.horizon(vocab_size).batch_tokens if vocab_size else None


def check_licences(recipes: dict[str, Recipe], todo: list[str]) -> None:
    """Warns of data of unknown licence, and refuses to push what was made from it or from non-commercial data."""
    from nanohf.hub.licensing import check_run

    to_push = [stage for stage, recipe in recipes.items() if recipe.push_to_hub]
    check_run(recipes, todo, [stage for stage in to_push if stage in todo or unpushed(recipes[stage])])


def check_inputs(recipes: dict[str, Recipe], todo: list[str]) -> None:
    """Refuses a run in which a stage needs another that is neither finished nor one of `todo`."""
    errors = []
    for stage in todo:
        settings = recipes[stage].settings
        needed = [getattr(settings, "tokenizer", None), getattr(settings, "model_name_or_path", None)]
        needed += settings.stages if stage == "evaluate" else []
        missing = [name for name in needed if name in STAGES and name not in todo]
        if missing := [name for name in missing if not runs.is_done(settings.run_dir, name)]:
            names = ", ".join(missing)
            errors.append(f"{stage} needs {names}, which is not finished in {settings.run_dir}; run it first")
    if errors:
        raise RecipeError(errors)


def check_carried(recipes: dict[str, Recipe], todo: list[str]) -> None:
    """Refuses a run in which a stage would carry on optimizer state that the one before it does not keep."""
    errors = []
    for stage in todo:
        config = recipes[stage].settings
        if not getattr(config, "carry_optimizer", False):
            continue
        source = config.model_name_or_path
        folder = Path(config.run_dir) / source if source in STAGES else Path(source)
        if source in todo and not getattr(recipes[source].settings, "keep_optimizer", False):
            errors.append(f"{stage}: carry_optimizer needs keep_optimizer: true in {source}'s recipe")
        elif source not in todo and not (folder / runs.OPTIMIZER).is_file():
            again = f"; run it again: --from {source} --set {source}.keep_optimizer=true" if source in STAGES else ""
            errors.append(f"{stage}: carry_optimizer: {folder} is finished and kept no optimizer state{again}")
    if errors:
        raise RecipeError(errors)


def check_resources(recipes: dict[str, Recipe], todo: list[str]) -> None:
    """Refuses a run that cannot fit on this machine, and warns of one that may not."""
    from nanohf.doctor.resource_checks import quick

    results = quick(recipes, todo)
    if failed := [f"{r.stage}: {r.what}: {r.figure}: {r.why}" for r in results if r.status == "fail"]:
        raise RecipeError(failed)
    for r in results:
        if r.status == "warn":
            console.warning(f"{r.stage}: {r.what}: {r.figure}: {r.why}")


def launch_command(path: str | None) -> list[str]:
    """`accelerate launch` with the given config, or with the one of ours that suits the machine."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file"]
    if path:
        if not Path(path).is_file():
            ours = shipped("accelerate_configs")
            raise RecipeError(f"--accelerate-config {path} does not exist; ours are in {ours}")
        config = read_mapping(Path(path))
        if "num_processes" not in config and config.get("distributed_type") not in ("NO", False):
            raise RecipeError(f"--accelerate-config {path} has no num_processes: add it, over all machines together")
        return [*launcher, path]
    import torch

    gpus = torch.cuda.device_count()
    name = "ddp" if gpus > 1 else "single_gpu" if gpus else "cpu"
    processes = ["--num_processes", str(gpus)] if gpus > 1 else []
    return [*launcher, str(shipped("accelerate_configs") / f"{name}.yaml"), *processes]


def launched_by(launcher: list[str]) -> int:
    """The number of processes that a launch command starts, on all machines together."""
    if "--num_processes" in launcher:
        return int(launcher[launcher.index("--num_processes") + 1])
    return int(accelerate_settings(launcher).get("num_processes") or 1)


def machine_rank(launcher: list[str]) -> int:
    """Which of the machines this is: 0 is the first, and where there is one."""
    return int(accelerate_settings(launcher).get("machine_rank") or 0)


def accelerate_settings(launcher: list[str]) -> dict:
    return read_mapping(Path(launcher[launcher.index("--config_file") + 1]))


# Two libraries' habits that cost a busy CPU most of its speed (benchmarks/RESULTS.md). glibc gives large buffers back
# to the system after every operation and takes them again for the next. And OpenMP's threads wait for each other by
# spinning: when one of them loses its core for a moment, the others burn theirs; so they are to sleep soon.
CPU = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "GOMP_SPINCOUNT": "2000"}

# In a log there are no progress bars, and no warnings that only TRL's and transformers' own developers can act on.
QUIET = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore::FutureWarning"}


def launch(command: list[str]) -> int:
    """Runs a stage; returns its exit status. accelerate makes 1 of every failure, so the stage notes its own."""
    config = Path(command[command.index("--config_file") + 1])
    cpu = {"OMP_NUM_THREADS": str(os.cpu_count()), **CPU} if config.name == "cpu.yaml" else {}
    quiet = {} if sys.stderr.isatty() and console.level() != "quiet" else QUIET
    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        with console.exit_status_file() as (environment, status_of):
            return status_of(subprocess.call(command, env=cpu | quiet | os.environ | environment))
    finally:
        signal.signal(signal.SIGTERM, before)


def pass_on(*_) -> None:
    """SIGTERM to the stage's processes: they may save a checkpoint; accelerate would leave them behind."""
    import psutil

    for launcher in psutil.Process().children():
        for process in launcher.children(recursive=True) or [launcher]:
            process.terminate()


def skip(recipe: Recipe) -> None:
    """Says that a stage is done, and warns if it was done by another recipe."""
    run_dir, stage = recipe.run_dir, recipe.stage
    record = runs.evaluated(run_dir) if stage == "evaluate" else runs.done(run_dir, stage)
    console.progress(f"done already: {run_dir / (runs.RESULTS if stage == 'evaluate' else stage)}")
    fetched = getattr(record, "fetched_from", None)  # then its recipe is as it was published
    wanted = without_paths(recipe.written) if fetched else recipe.written
    if changed := runs.changed_keys(record.recipe, wanted):
        console.warning(f"it was made with another {', '.join(changed)}; to redo it: --from {stage}")


def publish(stage: str, recipes: dict[str, Recipe]) -> list[str]:
    """Writes the card of a finished stage, and pushes it if its recipe says so and it is not there yet.

    After evaluate: the cards of all stages that were scored. Returns the stages that could not be published.
    """
    recipe = recipes[stage]
    if stage != "evaluate":
        return [] if succeeds(publish_stage, recipe) else [stage]
    from nanohf.hub.publish import update_card

    tokens = {name: other.hub_token for name, other in recipes.items()}
    scored = runs.evaluated(recipe.run_dir).stages
    return [name for name in scored if not succeeds(update_card, recipe.run_dir, name, tokens.get(name))]


def publish_stage(recipe: Recipe) -> None:
    from nanohf.hub.publish import push_stage, write_card

    run_dir, stage, wanted = recipe.run_dir, recipe.stage, recipe.hub_model_id
    record = runs.done(run_dir, stage)
    if decided := recipe.hub_license not in (None, record.hub_license):
        runs.note_licence(run_dir, stage, recipe.hub_license)
    if recipe.push_to_hub and (decided or unpushed(recipe)):
        push_stage(run_dir, stage, wanted, recipe.hub_private_repo, recipe.hub_token, recipe.hub_license)
    elif decided or not (recipe.push_to_hub or record.pushed_to):
        write_card(run_dir / stage, stage, record.pushed_to or wanted)


def unpushed(recipe: Recipe) -> bool:
    """Whether a finished stage is not yet where its recipe says."""
    pushed_to = runs.done(recipe.run_dir, recipe.stage).pushed_to or ""
    return recipe.hub_model_id not in (pushed_to, pushed_to.partition("/")[2])  # the default has no USER/


def succeeds(publishing: Callable, *arguments) -> bool:
    """Whether it was published. Whatever that fails of is said, and the run continues: the result is on disk."""
    try:
        publishing(*arguments)
    except PushError as error:
        console.error(str(error))
        return False
    except Exception:  # a fault of ours in a card must not cost the stages to come
        console.error(f"publishing failed:\n{traceback.format_exc()}")
        return False
    return True


def close(run_dir: Path, unpublished: list[str], recipes: dict[str, Recipe]) -> int:
    """The last lines: what is not published, and the command for it. The exit status: 1 if anything is not."""
    if not (stages := list(dict.fromkeys(unpublished))):
        return 0
    by_target: dict[str, list[str]] = {}
    for stage in stages:
        repo = runs.done(run_dir, stage).pushed_to or (recipes[stage].hub_model_id if stage in recipes else "USER/NAME")
        target = (repo if "/" in repo else f"USER/{repo}").removesuffix(f"-{stage}")
        by_target.setdefault(target, []).append(stage)
    commands = [f"  nanohf push {run_dir} {' '.join(names)} --to {target}" for target, names in by_target.items()]
    console.error(
        f"not published: {', '.join(stages)}. The results are safe in {run_dir}. Push them with\n" + "\n".join(commands)
    )
    return 1
