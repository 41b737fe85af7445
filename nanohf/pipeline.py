"""`nanohf run`: the stages in order, each through `accelerate launch`; what is done is skipped, what is not goes on."""

import os
import subprocess
import sys
from pathlib import Path

from nanohf import recipe, runs
from nanohf.recipe import STAGES, RecipeError
from nanohf.report import write_report

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
    run_dir = Path("runs") / (name or recipes.name)
    stages = chosen(first, last)
    arguments = {stage: stage_arguments(recipes, run_dir, stage, overrides, push) for stage in stages}
    check(arguments)
    config = launch_config(accelerate_config)

    for stage in STAGES[STAGES.index(first) :] if first else ():
        if old := runs.set_aside(run_dir, stage):
            print(f"{stage}: done again; the old result is in {old}", flush=True)
    for number, stage in enumerate(stages, 1):
        print(f"\n[{number}/{len(stages)}] {stage}", flush=True)
        if record := runs.done(run_dir, stage):
            skip(run_dir, stage, record, recipe.written(arguments[stage]), push)
        elif status := launch(config, MODULES[stage], arguments[stage]):
            print(f"{stage} ended with exit status {status}; the same command goes on from here", file=sys.stderr)
            return status
    print(f"\n{write_report(run_dir)}", flush=True)
    return 0


def recipe_folder(path: str) -> Path:
    """A folder of recipes, or one of ours by name: recipes/demo works from anywhere."""
    ours = recipe.shipped("recipes")
    for folder in (Path(path), ours / Path(path).name):
        if folder.is_dir():
            return folder.resolve()
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
    arguments = ["--config", str(recipes / f"{stage}.yaml"), "--run_dir", str(run_dir)]
    for override in overrides:
        target, equals, value = override.partition("=")
        owner, dot, key = target.partition(".")
        if not (equals and dot and key):
            raise RecipeError(f"--set {override}: write it as STAGE.KEY=VALUE, such as pretrain.max_steps=100")
        recipe.require_stage(owner)
        if owner == stage:
            arguments += [f"--{key}", value]
    if push and stage in PUSHED:
        arguments += ["--push_to_hub", "true", "--hub_model_id", f"{push}-{stage}"]
    return arguments


def check(arguments: dict[str, list[str]]) -> None:
    """Every stage's recipe and every source on this machine, before any of them is used."""
    problems = []
    for stage, argv in arguments.items():
        try:
            recipe.load(stage, argv)
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def launch_config(path: str | None) -> Path:
    """The accelerate config: the given one, or the one of ours that suits the machine."""
    if path:
        if not Path(path).is_file():
            ours = recipe.shipped("accelerate_configs")
            raise RecipeError(f"--accelerate-config {path} does not exist; ours are in {ours}")
        return Path(path)
    import torch

    gpus = torch.cuda.device_count()
    return recipe.shipped("accelerate_configs") / f"{'ddp' if gpus > 1 else 'single_gpu' if gpus else 'cpu'}.yaml"


# glibc gives large buffers back to the system after every operation and takes them again for the next one. Keeping
# them made SFT steps on a CPU 1.1 times faster at best and up to 20 times where pages are slow (benchmarks/RESULTS.md).
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


# In a log there are no progress bars, and no warnings that only TRL's and transformers' own developers can heed.
QUIET = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore::FutureWarning"}


def launch(config: Path, module: str, arguments: list[str]) -> int:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(config)]
    cpu = {"OMP_NUM_THREADS": str(os.cpu_count()), **KEEP_MEMORY} if config.name == "cpu.yaml" else {}
    quiet = {} if sys.stderr.isatty() else QUIET
    return subprocess.call([*launcher, "-m", module, *arguments], env=cpu | quiet | os.environ)


def skip(run_dir: Path, stage: str, record: dict, wanted: dict, push: str | None) -> None:
    """Says that a stage is done, warns if it was done by another recipe, and pushes it if that is asked for."""
    print(f"done already: {run_dir / stage}", flush=True)
    ignored = {"push_to_hub", "hub_model_id", "run_dir"}
    had = record.get("recipe", {})
    changed = [k for k in sorted({*had, *wanted} - ignored) if str(had.get(k)) != str(wanted.get(k))]
    if changed:
        print(f"warning: it was made with another {', '.join(changed)}; to redo it: --from {stage}", flush=True)
    if push and stage in PUSHED:
        subprocess.check_call([sys.executable, "-m", "nanohf.stages.push", str(run_dir), stage, "--to", push])
