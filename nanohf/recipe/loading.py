"""A stage's YAML recipe and its overrides to a checked, typed config. Unknown keys are errors, never ignored."""

import difflib
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import get_args, get_type_hints

from nanohf import console
from nanohf.errors import RecipeError
from nanohf.recipe.schemas import EvaluateConfig, PretrainConfig, TokenizerConfig

STAGES = ("tokenizer", "pretrain", "midtrain", "sft", "grpo", "evaluate")

NOT_MIXTURES = {"chat_template_path", "completion_only_loss", "dataset_text_field", "dataset_kwargs", "truncation_mode"}
NOT_MUONS = {"learning_rate", "optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"}
NOT_MUONS |= {"optim_args", "optim_target_modules"}
NOT_OURS = {"output_dir", "resume_from_checkpoint"}


def config_classes(stage: str) -> tuple[type, ...]:
    """The dataclasses whose fields are the keys of a stage's recipe."""
    if stage in ("midtrain", "sft"):
        from trl import SFTConfig

        from nanohf.train.post_training import ChatStage

        return ChatStage, SFTConfig
    if stage == "grpo":
        from trl import GRPOConfig

        from nanohf.train.post_training import ProblemStage

        return ProblemStage, GRPOConfig
    require_stage(stage)
    return ({"tokenizer": TokenizerConfig, "pretrain": PretrainConfig, "evaluate": EvaluateConfig}[stage],)


def require_stage(stage: str) -> None:
    if stage not in STAGES:
        raise RecipeError(f"unknown stage {stage!r}.{_suggest(stage, STAGES)} Stages: {', '.join(STAGES)}.")


def load(stage: str, argv: list[str]) -> tuple:
    """`--config FILE [--key value ...]` to the stage's config objects, one for each of `config_classes(stage)`.

    Raises:
        RecipeError: a missing file, no YAML mapping, an unknown key, a value of the wrong type or out of range, a
            folder of data that is not there or empty.
    """
    from trl import TrlParser

    class Parser(TrlParser):
        def error(self, message):
            raise RecipeError(message)

    path, recipe, overrides = read(argv)
    classes = config_classes(stage)
    # As written: the parser replaces a field's type `int | None` by `int`, and another stage may have parsed before.
    types = {f.name: get_type_hints(c)[f.name] for c in classes for f in fields(c) if f.init}
    if problems := wrong_keys(recipe, overrides, types) or wrong_types(recipe, types):
        raise RecipeError([f"{path}: {problem}" for problem in problems])
    find_beside(path, recipe)

    parser = Parser(classes, allow_abbrev=False)
    parser.set_defaults_with_config(**(_our_defaults(types) | recipe))
    arguments = [part for key, values in overrides.items() for part in (f"--{key}", *values)]
    try:
        configs = parser.parse_args_into_dataclasses(arguments)
    except RecipeError as error:
        raise RecipeError([f"{path}: {problem}" for problem in error.messages]) from error
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{path}: {error}") from error
    check_sources(stage, configs)
    if stage == "grpo" and (problems := configs[0].wrong_with(configs[1])):
        raise RecipeError([f"{path}: {problem}" for problem in problems])
    return configs


def read(argv: list[str]) -> tuple[Path, dict, dict[str, list[str]]]:
    """The recipe's path, its keys as written, and the overrides of the command line."""
    import yaml

    path, overrides = _split(argv)
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path} is no YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise RecipeError(f"recipe {path} must map keys to values, not be a {type(recipe).__name__}")
    return path, recipe, overrides


def written(argv: list[str]) -> dict:
    """What the user wrote, recipe and overrides together, for the record. Access tokens stay out of it."""
    _, recipe, overrides = read(argv)
    overrides = {key: values[0] if len(values) == 1 else values for key, values in overrides.items()}
    return {key: value for key, value in (recipe | overrides).items() if not key.endswith("_token")}


def wrong_keys(recipe: dict, overrides: dict, types: dict) -> list[str]:
    """Keys that no config has, and those that the stage or its optimizer would not heed."""
    unknown = [f"unknown key {key!r}.{_suggest(key, types)}" for key in (*recipe, *overrides) if key not in types]
    if "output_dir" in types and (unheard := NOT_OURS & {*recipe, *overrides}):
        why = "leave it out, a stage writes run_dir/STAGE and goes on by itself"
        unknown.append(f"{', '.join(sorted(unheard))}: {why}")
    muon = "optimizer" in types and (recipe | overrides).get("optimizer", "muon") in ("muon", ["muon"])
    if muon and (unheard := NOT_MUONS & {*recipe, *overrides}):
        rates = "lr_scale, matrix_lr, embedding_lr and head_lr"
        unknown.append(f"optimizer: muon does not heed {', '.join(sorted(unheard))} but {rates}")
    if "mixture" in types and (unheard := NOT_MIXTURES & {*recipe, *overrides}):
        unknown.append(
            f"{', '.join(sorted(unheard))}: leave it out, the model's own chat template says what is trained"
        )
    return unknown


def wrong_types(recipe: dict, types: dict) -> list[str]:
    """YAML values that the parser would take as they are: a fraction for a whole number, a word for a list."""
    problems = []
    for key, value in recipe.items():
        if value is None and type(None) in get_args(types[key]):
            continue
        if types[key] in (int, int | None) and type(value) is not int:
            problems.append(f"{key}={value!r} must be a whole number")
        elif str(types[key]).startswith("list") and not isinstance(value, list):
            problems.append(f"{key}={value!r} must be a list, such as [{value}]")
    return problems


def find_beside(path: Path, recipe: dict) -> None:
    """Identity files are found from the recipe's folder, wherever the command runs."""
    for source in [s for name in ("mixture", "eval_mixture") for s in recipe.get(name) or [] if isinstance(s, dict)]:
        beside = path.parent / str(source.get("dataset"))
        if beside.suffix in (".yaml", ".yml"):
            source["dataset"] = str(beside)


def check_sources(stage: str, configs: tuple) -> None:
    """What can be known of a stage's sources without the network: folders that are missing or hold no text.

    Raises:
        RecipeError
    """
    from nanohf.data.sources import check_examples, check_text

    config = configs[0]
    if stage in ("tokenizer", "pretrain"):
        checks = [partial(check_text, config.dataset, config.dataset_config, config.text_column)]
    elif stage in ("midtrain", "sft"):
        checks = [
            partial(check_text, s.dataset, s.config, s.text_column)
            if s.is_document
            else partial(check_examples, s.dataset, s.config, s.rows)
            for s in config.mixture + config.eval_mixture
        ]
    else:
        rows = config.dataset_rows if stage == "grpo" else config.problems
        kind = config.dataset_config or ("problems" if config.dataset == "builtin" else None)
        checks = [partial(check_examples, config.dataset, kind, rows)]
    if stage == "evaluate":
        checks.append(partial(check_text, config.text_dataset, config.text_dataset_config, config.text_column))
    problems = []
    for check in checks:
        try:
            check()
        except ValueError as error:
            problems.append(f"{stage}: {error}")
    if problems:
        raise RecipeError(problems)


def run_stage(stage_main) -> None:
    """Runs a stage's `main(argv)` as the whole process."""
    sys.exit(console.exit_status(partial(stage_main, sys.argv[1:])))


def shipped(name: str) -> Path:
    """A folder that stands beside the package: in a checkout at the top level, in an installed wheel inside it."""
    package = Path(__file__).resolve().parents[1]
    return next(p for p in (package / "_shipped" / name, package.parent / name) if p.is_dir())


def _our_defaults(known: set[str]) -> dict:
    """Where TRL's defaults would stop a run without a GPU, cost a fifth of its speed, or train on what users say."""
    if "bf16" not in known:
        return {}
    import torch

    from nanohf.hardware.device import device_type, multiplies_bf16

    cuda = torch.cuda.is_available()
    ours = {
        "bf16": bool(multiplies_bf16(device_type())),
        "use_cpu": not cuda,
        "activation_checkpointing": False,
        "assistant_only_loss": True,
        "report_to": "none",
        "lr_scheduler_type": "linear",
        "disable_tqdm": True,  # nanohf.train.progress prints instead
    }
    return {key: value for key, value in ours.items() if key in known}


def _split(argv: list[str]) -> tuple[Path, dict[str, list[str]]]:
    """--config PATH and --key value [value ...], in any order."""
    overrides: dict[str, list[str]] = {}
    key = None
    for arg in argv:
        if arg.startswith("--"):
            key, _, value = arg[2:].partition("=")
            overrides[key] = [value] if value else []
        elif key is None:
            raise RecipeError(f"{arg!r} belongs to no option; write --key value")
        else:
            overrides[key].append(arg)
    if len(config := overrides.pop("config", [])) != 1:
        raise RecipeError("give the stage's recipe: --config recipes/NAME/STAGE.yaml")
    return Path(config[0]), overrides


def _suggest(word: str, known) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
