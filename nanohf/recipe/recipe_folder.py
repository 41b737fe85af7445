"""A folder of recipes, one per stage: where it is, and all of its recipes at once with the command line's changes."""

from pathlib import Path

from nanohf.errors import RecipeError
from nanohf.recipe.loading import Recipe, load_recipe
from nanohf.recipe.stage_names import CHAT_STAGES, RESULT_STAGES, require_stage

BY_THE_RUN = ("config", "run_dir", "stage")


def shipped(name: str) -> Path:
    """A folder that stands beside the package: in a checkout at the top level, in an installed wheel inside it."""
    package = Path(__file__).resolve().parents[1]
    return next(p for p in (package / "_shipped" / name, package.parent / name) if p.is_dir())


def find_recipe_folder(path: str) -> Path:
    """A folder of recipes, or one of ours by name: recipes/demo works from anywhere.

    Raises:
        RecipeError: there is no such folder.
    """
    ours = shipped("recipes")
    name = Path(path).name
    if Path(path).is_dir():
        return Path(path).resolve()
    if Path(path) in (Path(name), Path("recipes") / name) and (ours / name / "pretrain.yaml").is_file():
        return ours / name
    names = ", ".join(sorted(p.parent.name for p in ours.glob("*/pretrain.yaml") if p.parent.name != "base"))
    raise RecipeError(f"{path}: no such recipe folder. Ours are {names}.")


def run_folder(name: str) -> Path:
    """runs/NAME.

    Raises:
        RecipeError: the name is a path.
    """
    if Path(name).name != name or name in (".", ".."):
        raise RecipeError(f"--name {name!r} must be a plain name: the run's folder is runs/NAME")
    return Path("runs") / name


def stage_arguments(
    folder: Path, run_dir: Path, stage: str, overrides: list[str], push: str | None, licence: str | None = None
) -> list[str]:
    """The command line of one stage.

    overrides: STAGE.KEY=VALUE, or STAGE=RECIPE for another recipe of the folder. push: USER/NAME, or None;
    licence: of what is pushed, or None.

    Raises:
        RecipeError: an override that is neither, or of a key that the run itself sets.
    """
    file, values = stage, []
    for override in overrides:
        target, equals, value = override.partition("=")
        owner, dot, key = target.partition(".")
        if not equals or not (key if dot else value):
            raise RecipeError(
                f"--set {override}: write it as STAGE.KEY=VALUE, such as pretrain.max_steps=100, "
                "or STAGE=RECIPE, such as grpo=grpo_fast"
            )
        require_stage(owner)
        if key in BY_THE_RUN:
            raise RecipeError(f"--set {override}: {key} is the run's to say; --name NAME sets its folder, runs/NAME")
        if owner == stage and dot:
            values += [f"--{key}", value]
        elif owner == stage:
            file = value
    arguments = ["--config", str(folder / f"{file}.yaml"), "--run_dir", str(run_dir), *values]
    if stage in CHAT_STAGES:
        arguments += ["--stage", stage]
    if push and stage in RESULT_STAGES:
        arguments += ["--push_to_hub", "true", "--hub_model_id", f"{push}-{stage}"]
    if licence and stage in RESULT_STAGES:
        arguments += ["--hub_license", licence]
    return arguments


def load_all(arguments: dict[str, list[str]]) -> dict[str, Recipe]:
    """The recipe of each stage from its command line.

    Raises:
        RecipeError: all errors of all recipes.
    """
    errors, recipes = [], {}
    for stage, argv in arguments.items():
        try:
            recipes[stage] = load_recipe(stage, argv)
        except RecipeError as error:
            errors += error.messages
    if errors:
        raise RecipeError(list(dict.fromkeys(errors)))
    return recipes
