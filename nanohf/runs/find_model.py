"""Finds a model, a folder or a Hub repo, and loads it; one that is not there is said in one line."""

from collections.abc import Iterator
from typing import Any

from nanohf.data.hub_names import pretrained
from nanohf.errors import NanoHFError, RecipeError


def model_type(source: str) -> str:
    """The `model_type` that the config.json of a folder or of a Hub repo names.

    Raises:
        RecipeError: there is no such model, or this token may not read it.
        NanoHFError: the Hub cannot be reached, and the model is not in the cache.
    """
    from transformers import PreTrainedConfig
    from transformers.utils.hub import LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        config, _ = PreTrainedConfig.get_config_dict(**pretrained(source))
    except (OSError, ValueError) as error:
        causes = list(_causes(error))
        status = next(filter(None, (getattr(getattr(e, "response", None), "status_code", None) for e in causes)), None)
        if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
            message = f"{source}: no such folder and no such repo on the Hub. If it is private, log in: hf auth login"
            raise RecipeError(message) from error
        if status in (401, 403):
            message = f"{source}: this token may not read it. Ask for access on its page, then log in: hf auth login"
            raise RecipeError(message) from error
        if any(isinstance(cause, LocalEntryNotFoundError) for cause in causes):
            message = f"{source} is not in the cache, and the Hub cannot be reached: {causes[-1]}"
            raise NanoHFError(" ".join(message.split())) from error
        raise RecipeError(f"{source} is not a model: {' '.join(str(error).split())}") from error
    if "model_type" not in config:
        raise RecipeError(f"{source} is not a model: its config.json has no model_type")
    return config["model_type"]


def load_model(model_class: Any, source: str) -> Any:
    """The model in fp32. From safetensors only: other weights may hold code that runs when they are read.

    Raises:
        RecipeError: there are none, or they cannot be loaded.
    """
    try:
        return model_class.from_pretrained(**pretrained(source), dtype="float32", use_safetensors=True)
    except OSError as error:
        raise RecipeError(f"{source} has no safetensors that can be loaded: {' '.join(str(error).split())}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
