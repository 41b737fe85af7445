"""`nanohf run`: the stages in order, each through `accelerate launch`; what is done is skipped, what is not goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from nanohf import console
from nanohf.errors import RecipeError
from nanohf.recipe import loading as recipe
from nanohf.recipe.loading import STAGES
from nanohf.report.run_report import write_report
from nanohf.runs import run_folder as runs
from nanohf.runs.disk_full import disk_full_said
from nanohf.runs.lock import run_lock

MODULES = {stage: f"nanohf.stages.{'sft' if stage == 'midtrain' else stage}" for stage in STAGES}
PUSHED = STAGES[:-1]


def run(
    recipe_dir: str,
    name: str | None = None,
    overrides: list[str] = (),
    push: str | None = None,
    first: str | None = None,
    last: str | None = None,
    accelerate_config: str | None = None,
) -> int:
    """Runs the recipes of a folder; returns the exit status.

    Raises:
        RecipeError: anything wrong with the recipes or the arguments, all of it at once, before any stage starts.
    """
    recipes = recipe_folder(recipe_dir)
    run_dir = run_folder(name or recipes.name)
    stages = chosen(first, last)
    arguments = {stage: stage_arguments(recipes, run_dir, stage, overrides, push) for stage in stages}
    configs = check(arguments)
    launcher = launch_command(accelerate_config)
    with disk_full_said(run_dir), run_lock(run_dir):
        return work(run_dir, stages, arguments, configs, launcher, first)


def work(run_dir: Path, stages: list[str], arguments: dict, configs: dict, launcher: list[str], first) -> int:
    """The stages in a folder that is ours alone."""
    todo = [stage for stage in stages if first or not runs.done(run_dir, stage)]
    check_carried(configs, todo)
    look(configs, todo)

    for stage in STAGES[STAGES.index(first) :] if first else ():
        if old := runs.set_aside(run_dir, stage):
            console.progress(f"{stage}: done again; the old result is in {old}")
    failed = 0
    for number, stage in enumerate(stages, 1):
        console.progress(f"\n[{number}/{len(stages)}] {stage}")
        if record := runs.done(run_dir, stage):
            skip(run_dir, stage, record, recipe.written(arguments[stage]))
            failed |= not published(run_dir, stage, record, configs[stage])
        elif status := launch([*launcher, "-m", MODULES[stage], *arguments[stage]]):
            go_on = "the same command without --from goes on" if first else "the same command goes on"
            console.error(f"{stage} ended with exit status {status}; {go_on} from here")
            return status
        elif runs.done(run_dir, stage) is None:  # told to stop, and did
            return 0
    console.result(f"\n{write_report(run_dir)}")
    return int(failed)


def run_folder(name: str) -> Path:
    if Path(name).name != name or name in (".", ".."):
        raise RecipeError(f"--name {name!r} must be a plain name: the run's folder is runs/NAME")
    return Path("runs") / name


def recipe_folder(path: str) -> Path:
    """A folder of recipes, or one of ours by name: recipes/demo works from anywhere."""
    ours = recipe.shipped("recipes")
    name = Path(path).name
    if Path(path).is_dir():
        return Path(path).resolve()
    if Path(path) in (Path(name), Path("recipes") / name) and (ours / name).is_dir():
        return ours / name
    names = ", ".join(sorted(p.name for p in ours.iterdir() if p.is_dir()))
    raise RecipeError(f"no recipe folder {path}; ours are {names}")


def chosen(first: str | None, last: str | None) -> list[str]:
    """The stages from `first` until `last`, both included."""
    for stage in filter(None, (first, last)):
        recipe.require_stage(stage)
    begin = STAGES.index(first) if first else 0
    end = STAGES.index(last) + 1 if last else len(STAGES)
    if begin >= end:
        raise RecipeError(f"--from {first} comes after --until {last}; the order is {', '.join(STAGES)}")
    return list(STAGES[begin:end])


def stage_arguments(recipes: Path, run_dir: Path, stage: str, overrides: list[str], push: str | None) -> list[str]:
    """The command line of one stage."""
    file, values = stage, []
    for override in overrides:
        target, equals, value = override.partition("=")
        owner, dot, key = target.partition(".")
        if not equals or not (key if dot else value):
            raise RecipeError(
                f"--set {override}: write it as STAGE.KEY=VALUE, such as pretrain.max_steps=100, "
                "or STAGE=RECIPE, such as grpo=grpo_fast"
            )
        recipe.require_stage(owner)
        if owner == stage and dot:
            values += [f"--{key}", value]
        elif owner == stage:
            file = value
    arguments = ["--config", str(recipes / f"{file}.yaml"), "--run_dir", str(run_dir), *values]
    if stage in ("midtrain", "sft"):
        arguments += ["--stage", stage]
    if push and stage in PUSHED:
        arguments += ["--push_to_hub", "true", "--hub_model_id", f"{push}-{stage}"]
    return arguments


def check(arguments: dict[str, list[str]]) -> dict[str, tuple]:
    """Every stage's config, with every source on this machine checked, before any of them is used."""
    problems, configs = [], {}
    for stage, argv in arguments.items():
        try:
            configs[stage] = recipe.load(stage, argv)
        except RecipeError as error:
            problems += error.messages
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    return configs


def check_carried(configs: dict[str, tuple], todo: list[str]) -> None:
    """Refuses a run in which a stage would carry on optimizer state that the one before it does not keep."""
    problems = []
    for stage in todo:
        config = configs[stage][0]
        if not getattr(config, "carry_optimizer", False):
            continue
        source = config.model_name_or_path
        folder = Path(config.run_dir) / source if source in STAGES else Path(source)
        if source in todo and not getattr(configs[source][0], "keep_optimizer", False):
            problems.append(f"{stage}: carry_optimizer needs keep_optimizer: true in {source}'s recipe")
        elif source not in todo and not (folder / runs.OPTIMIZER).is_file():
            again = f"; do it again: --from {source} --set {source}.keep_optimizer=true" if source in STAGES else ""
            problems.append(f"{stage}: carry_optimizer: {folder} is finished and kept no optimizer state{again}")
    if problems:
        raise RecipeError(problems)


def look(configs: dict[str, tuple], todo: list[str]) -> None:
    """Refuses a run that cannot fit on this machine, and warns of one that may not."""
    from nanohf.doctor.resource_checks import quick

    results = quick(configs, todo)
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
            ours = recipe.shipped("accelerate_configs")
            raise RecipeError(f"--accelerate-config {path} does not exist; ours are in {ours}")
        return [*launcher, path]
    import torch

    gpus = torch.cuda.device_count()
    name = "ddp" if gpus > 1 else "single_gpu" if gpus else "cpu"
    processes = ["--num_processes", str(gpus)] if gpus > 1 else []
    return [*launcher, str(recipe.shipped("accelerate_configs") / f"{name}.yaml"), *processes]


# Two libraries' habits that cost a busy CPU most of its speed (benchmarks/RESULTS.md). glibc gives large buffers back
# to the system after every operation and takes them again for the next. And OpenMP's threads wait for each other by
# spinning: when one of them loses its core for a moment, the others burn theirs; so they are to sleep soon.
CPU = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "GOMP_SPINCOUNT": "2000"}

# In a log there are no progress bars, and no warnings that only TRL's and transformers' own developers can heed.
QUIET = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore::FutureWarning"}


def launch(command: list[str]) -> int:
    cpu = {"OMP_NUM_THREADS": str(os.cpu_count()), **CPU} if "cpu.yaml" in command[5] else {}
    quiet = {} if sys.stderr.isatty() else QUIET
    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        return subprocess.call(command, env=cpu | quiet | os.environ)
    finally:
        signal.signal(signal.SIGTERM, before)


def pass_on(*_) -> None:
    """SIGTERM to the stage's processes: they may save a checkpoint; accelerate would leave them behind."""
    import psutil

    for launcher in psutil.Process().children():
        for process in launcher.children(recursive=True) or [launcher]:
            process.terminate()


def skip(run_dir: Path, stage: str, record: dict, wanted: dict) -> None:
    """Says that a stage is done, and warns if it was done by another recipe."""
    console.progress(f"done already: {run_dir / ('results.json' if stage == 'evaluate' else stage)}")
    had = record.get("recipe", {})
    changed = [k for k in sorted({*had, *wanted} - runs.FREE_TO_CHANGE) if str(had.get(k)) != str(wanted.get(k))]
    if changed:
        console.warning(f"it was made with another {', '.join(changed)}; to redo it: --from {stage}")


def published(run_dir: Path, stage: str, record: dict, configs: tuple) -> bool:
    """Pushes a finished stage that its recipe wants pushed and that is not there yet; False: it failed, and says so."""
    config = configs[-1]
    if stage not in PUSHED or not config.push_to_hub or record.get("pushed_to") == config.hub_model_id is not None:
        return True
    from nanohf.errors import PushError
    from nanohf.hub.publish import publish

    try:
        publish(config, stage, run_dir / stage)
    except PushError as error:
        console.error(str(error))
        return False
    return True
