"""Are the recipe's texts, conversations and problems there? Folders were looked at when the recipe was loaded."""

import os
from collections.abc import Iterator

from datasets import load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from transformers import PreTrainedConfig

from nanohf.data import text_files
from nanohf.data.sources import BUILTIN, is_local, table_source
from nanohf.doctor.check_result import Result
from nanohf.errors import RecipeError
from nanohf.recipe.loading import Recipe
from nanohf.recipe.stage_names import MODEL_STAGES
from nanohf.runs import run_folder as runs

READ_WITH_THE_RECIPE = ("identity",)  # a file, and no dataset
NO_NETWORK = (ConnectionError, TimeoutError)


def sources_of(stage: str, recipe: Recipe) -> list[tuple[str, str | None, str | None]]:
    """(dataset, config, split) of all that a stage reads; split None where any will do."""
    config = recipe.settings
    found = []
    if hasattr(config, "dataset"):
        found.append((config.dataset, config.dataset_config, "train" if stage == "grpo" else None))
        found += [(config.dataset, config.dataset_config, "test")] * (stage in ("grpo", "evaluate"))
    if hasattr(config, "text_dataset"):
        found.append((config.text_dataset, config.text_dataset_config, None))
    for name in ("mixture", "eval_mixture"):
        lines = [source for source in getattr(config, name, []) if source.converter not in READ_WITH_THE_RECIPE]
        found += [(source.dataset, source.config, None if source.is_document else source.split) for source in lines]
    return list(dict.fromkeys(found))


def reachable(stage: str, dataset: str, config: str | None, splits: list[str]) -> Result:
    """The source exists, has this configuration and these splits: its file list is read, no data."""
    named = " ".join(filter(None, (dataset, config)))
    what = f"source {named}"
    if dataset == BUILTIN:
        return Result("ok", stage, what, "builtin")
    if not splits and is_local(dataset):  # text, which the recipe's loading has looked at
        files = text_files.find(dataset, config)
        left_out = f"; not read: {text_files.some(files.left_out)}" if files.left_out else ""
        count = len(files.train) + len(files.validation)
        return Result("ok", stage, what, f"{count:,} file{'s' * (count > 1)}{left_out}")
    try:
        found = [str(split) for split in load_dataset_builder(**table_source(dataset, config)).config.data_files or {}]
    except DatasetNotFoundError:
        why = (
            f"dataset={dataset!r} is neither on the Hub nor a folder here; mind the spelling, or log in if it is gated"
        )
        return Result("fail", stage, what, "missing", why)
    except NO_NETWORK as error:
        return unreachable(stage, what, error)
    except ValueError as error:  # an unknown configuration; the message lists those there are
        return Result("fail", stage, what, "no such configuration", " ".join(str(error).split()))
    bases = [part.partition("[")[0].strip() for wanted in splits for part in wanted.split("+")]  # train[:90%]+test
    if found and (missing := [split for split in dict.fromkeys(bases) if split not in found]):
        why = f"it has {', '.join(found)}; set split in the recipe"
        return Result("fail", stage, what, f"no split {', '.join(missing)}", why)
    return Result("ok", stage, what, ", ".join(found))


def unreachable(stage: str, what: str, error: Exception) -> Result:
    if offline():
        why = "cannot check offline, and it is not in the cache; unset HF_HUB_OFFLINE, or fetch it before the run"
        return Result("warn", stage, what, "not checked", why)
    return Result("fail", stage, what, "unreachable", f"the Hub does not answer: {str(error).splitlines()[0]}")


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def input_model(stage: str, run_dir: str, model: str) -> Result:
    """What a stage starts from: a stage of the run, finished or to come, or a model that is there."""
    what = f"source {model}"
    try:
        source = runs.resolve(run_dir, model)
    except RecipeError:
        if model in MODEL_STAGES:
            return Result("ok", stage, what, "a stage of the run, not finished yet")
        why = f"model_name_or_path={model!r} is not a stage ({', '.join(MODEL_STAGES)}), no folder and no Hub id"
        return Result("fail", stage, what, "missing", why)
    try:
        PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError) as error:
        if offline():
            return unreachable(stage, what, error)
        why = f"model_name_or_path={model!r} cannot be read: {str(error).strip().splitlines()[0]}"
        return Result("fail", stage, what, "missing", why)
    return Result("ok", stage, what, source)


def check_sources(stage: str, recipe: Recipe) -> Iterator[Result]:
    """Every dataset of the stage once, and the model it starts from."""
    grouped: dict[tuple, list[str]] = {}
    for dataset, config, split in sources_of(stage, recipe):
        grouped.setdefault((dataset, config), []).extend([split] if split else [])
    for (dataset, config), splits in grouped.items():
        yield reachable(stage, dataset, config, splits)
    if model := getattr(recipe.settings, "model_name_or_path", None):
        yield input_model(stage, recipe.settings.run_dir, model)
