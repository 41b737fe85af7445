"""Can the recipe's texts, conversations and word problems be read? They are opened as `nanohf run` opens them."""

from collections.abc import Iterator

from transformers import PreTrainedConfig

from nanohf.data.hub_errors import NotChecked, offline
from nanohf.data.hub_names import pretrained
from nanohf.doctor.check_result import Result
from nanohf.errors import RecipeError
from nanohf.recipe.loading import Recipe
from nanohf.recipe.source_errors import SourceCheck, source_checks
from nanohf.recipe.stage_names import MODEL_STAGES
from nanohf.runs import run_folder as runs


def check_sources(stage: str, recipe: Recipe) -> Iterator[Result]:
    """Every source of the stage, and the model it starts from."""
    for check in source_checks(recipe):
        yield opened(stage, check)
    if model := getattr(recipe.settings, "model_name_or_path", None):
        yield input_model(stage, recipe.settings.run_dir, model)


def opened(stage: str, check: SourceCheck) -> Result:
    what = f"source {check.name}"
    try:
        check.open()
    except NotChecked as error:
        why = f"{error}; unset HF_HUB_OFFLINE, or fetch it before the run"
        return Result("warn", stage, what, "not checked", why)
    except (ValueError, OSError) as error:
        return Result("fail", stage, what, "cannot be used", " ".join(str(error).split()))
    return Result("ok", stage, what, "first rows read")


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
        PreTrainedConfig.get_config_dict(**pretrained(source))
    except (OSError, ValueError) as error:
        if offline():
            why = "it is not in the cache, and HF_HUB_OFFLINE is set; unset it, or fetch the model before the run"
            return Result("warn", stage, what, "not checked", why)
        why = f"model_name_or_path={model!r} cannot be read: {str(error).strip().splitlines()[0]}"
        return Result("fail", stage, what, "missing", why)
    return Result("ok", stage, what, source)
