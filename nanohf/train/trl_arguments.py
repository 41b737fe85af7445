"""A recipe's TRL keys as TRL's own config object; and the list of those keys that recipes are checked against.

python -m nanohf.train.trl_arguments    # writes the list again, after an update of TRL
"""

import json
import typing
from dataclasses import MISSING, asdict, fields
from enum import Enum
from pathlib import Path

import torch
from trl import GRPOConfig, SFTConfig

from nanohf.errors import RecipeError
from nanohf.hardware.device import device_type, launched_processes, multiplies_bf16, refuse_fsdp, require_all_processes
from nanohf.recipe.loading import Recipe
from nanohf.recipe.trl_keys import FILE, KINDS
from nanohf.recipe.values import kinds_of
from nanohf.train.post_training import kept_batch
from nanohf.train.resuming import Batch

CONFIGS = {"SFTConfig": SFTConfig, "GRPOConfig": GRPOConfig}


def training_arguments(recipe: Recipe, output_dir: str, use_cpu: bool = False) -> SFTConfig | GRPOConfig:
    """TRL's config for a stage. Pushing is off: a finished stage is pushed once, with its card, by nanohf.hub.

    The accumulation is what gives a step the recipe's batch, or the batch of the checkpoints in output_dir, with the
    processes there are. use_cpu: to check the values only, without a CUDA context in this process.

    Raises:
        RecipeError: TRL refuses a value, or a combination of them; vLLM without a GPU; FSDP; the processes cannot share
            the batch evenly.
    """
    check_vllm(recipe)
    refuse_fsdp(recipe.trl.fsdp)
    batch = shared_batch(recipe, Path(output_dir), launched_processes())
    settings = asdict(recipe.trl)
    settings |= {"per_device_train_batch_size": batch.rows, "gradient_accumulation_steps": batch.accumulation}
    if settings["bf16"] is None:
        settings["bf16"] = bool(multiplies_bf16(device_type()))
    if settings["use_cpu"] is None or use_cpu:
        settings["use_cpu"] = use_cpu or device_type() == "cpu"
    if settings["ddp_find_unused_parameters"] is None:
        settings["ddp_find_unused_parameters"] = False  # TRL's True walks the graph in every step: all are used
    settings |= {"output_dir": output_dir, "push_to_hub": False}
    try:
        args = CONFIGS[recipe.trl_config or ""](**settings)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{recipe.path}: {error}") from error
    require_all_processes(args.world_size)
    return args


def shared_batch(recipe: Recipe, checkpoints: Path, processes: int) -> Batch:
    """
    Raises:
        RecipeError: the processes cannot share the batch evenly.
    """
    if kept := kept_batch(checkpoints, processes):
        return kept
    rows = recipe.trl.per_device_train_batch_size
    try:
        return Batch(processes, rows, recipe.step_batch.accumulation(rows, processes))
    except RecipeError as error:
        raise RecipeError(f"{recipe.path}: {error}") from error


def check_vllm(recipe: Recipe) -> None:
    """
    Raises:
        RecipeError: the recipe asks for vLLM on a machine without a GPU for it.
    """
    if getattr(recipe.trl, "use_vllm", False) and not torch.cuda.is_available():
        raise RecipeError(
            f"{recipe.path}: use_vllm needs a CUDA GPU; without it the engine of nanohf generates, on any device"
        )


def check_arguments(recipes: list[Recipe]) -> None:
    """
    Raises:
        RecipeError: all that TRL refuses.
    """
    errors = []
    for recipe in recipes:
        try:
            training_arguments(recipe, output_dir=str(recipe.run_dir), use_cpu=True)
        except RecipeError as error:
            errors += error.messages
    if errors:
        raise RecipeError(errors)


def installed_keys() -> dict[str, dict[str, tuple[list[str], object]]]:
    """{config: {key: (kinds, default)}} of the installed TRL."""
    return {name: dict(_keys(config)) for name, config in CONFIGS.items()}


def _keys(config: type) -> typing.Iterator[tuple[str, tuple[list[str], object]]]:
    hints = typing.get_type_hints(config)
    names = {kind: name for name, kind in KINDS.items()}
    for field in fields(config):
        if field.init:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            kinds = list(dict.fromkeys(names[kind] for kind in kinds_of(hints[field.name])))
            kinds += ["null"] if default is None and "null" not in kinds else []
            yield field.name, (kinds, default.value if isinstance(default, Enum) else default)


if __name__ == "__main__":
    lines = [
        f' "{name}": {{\n'
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in keys.items())
        + "\n }"
        for name, keys in installed_keys().items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
