"""A stage's YAML recipe and its overrides to one checked, frozen Recipe. Unknown keys are errors, never ignored.

A recipe may begin with `base: FILE`, found from its own folder: the keys of that file, but for those it says itself.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from nanohf.data.chat_source import ChatSource
from nanohf.data.identity import SUFFIXES
from nanohf.data.word_problem_source import WordProblemSource
from nanohf.errors import RecipeError
from nanohf.recipe.credentials import without_credentials
from nanohf.recipe.post_training_schemas import ChatConfig, WordProblemConfig
from nanohf.recipe.schemas import EvaluateConfig, PretrainConfig, TokenizerConfig
from nanohf.recipe.stage_names import CHAT_STAGES, require_stage
from nanohf.recipe.trl_keys import trl_keys, trl_settings
from nanohf.recipe.values import WrongValue, from_command_line, from_yaml, kinds_of, suggestion
from nanohf.recipe.yaml_file import read_mapping
from nanohf.scaling.step_batch import StepBatch

# A stage's own keys, and whose keys of TRL's it takes besides.
SCHEMAS: dict[str, tuple[type, str | None]] = {
    "tokenizer": (TokenizerConfig, None),
    "pretrain": (PretrainConfig, None),
    "midtrain": (ChatConfig, "SFTConfig"),
    "sft": (ChatConfig, "SFTConfig"),
    "grpo": (WordProblemConfig, "GRPOConfig"),
    "evaluate": (EvaluateConfig, None),
}
NOT_MIXTURES = {"chat_template_path", "completion_only_loss", "dataset_text_field", "dataset_kwargs", "truncation_mode"}
NOT_MUONS = {"learning_rate", "optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"}
NOT_MUONS |= {"optim_args", "optim_target_modules"}
NOT_OURS = {"output_dir", "resume_from_checkpoint"}
# Keys that list sources.
LISTS = {"mixture": ChatSource, "eval_mixture": ChatSource, "word_problems": WordProblemSource}
PER_PROCESS = ("gradient_accumulation_steps", "steps_per_generation")


@dataclass(frozen=True)
class Recipe:
    """What one stage is to do. Read once, passed to everything, and kept in the stage's record as it was written.

    stage: its name; path: the file; written: keys and values of the file, its base and the overrides, without
    tokens and passwords; settings: all of the stage's own keys; trl: all of TRL's, for midtrain, sft and grpo.
    """

    stage: str
    path: Path
    written: dict[str, Any]
    settings: Any
    trl: Any = None

    @property
    def training(self) -> Any:
        """Where batch, save and seed keys are: TRL's, or the stage's own."""
        return self.trl or self.settings

    @property
    def trl_config(self) -> str | None:
        """Whose keys `trl` holds: SFTConfig or GRPOConfig."""
        return SCHEMAS[self.stage][1]

    @property
    def step_batch(self) -> StepBatch:
        """Of midtrain, sft and grpo: what one step reads, over all processes."""
        return self.settings.step_batch(self.trl)

    @property
    def run_dir(self) -> Path:
        return Path(self.settings.run_dir)

    @property
    def hub_model_id(self) -> str:
        """Where the result is pushed: as the recipe says, or RUN-STAGE of the token's user."""
        return self._publishing.hub_model_id or f"{self.run_dir.resolve().name}-{self.stage}"

    @property
    def push_to_hub(self) -> bool:
        return bool(self._publishing and self._publishing.push_to_hub)

    @property
    def hub_private_repo(self) -> bool | None:
        return self._publishing.hub_private_repo

    @property
    def hub_license(self) -> str | None:
        return getattr(self.settings, "hub_license", None)

    @property
    def hub_token(self) -> str | None:
        return getattr(self._publishing, "hub_token", None)

    @property
    def _publishing(self) -> Any:
        return self.trl or (self.settings if self.stage != "evaluate" else None)


def load_recipe(stage: str, argv: list[str]) -> Recipe:
    """`--config FILE [--key value ...]` to the stage's recipe. Opens no data: see `nanohf.recipe.source_errors`.

    Raises:
        RecipeError: a missing file, no YAML mapping, an unknown key, a value of the wrong kind or out of range. All
            errors of a recipe at once.
    """
    require_stage(stage)
    path, overrides = split_arguments(argv)
    try:
        written, folders = read(path)
        values = typed(written, overrides, kinds_of_keys(stage))
        return built(values.get("stage", stage) if stage in CHAT_STAGES else stage, path, values, folders)
    except RecipeError as error:
        named = [m if m.startswith("recipe ") else f"{path}: {m}" for m in error.messages]
        raise RecipeError(named) from error


def split_arguments(argv: list[str]) -> tuple[Path, dict[str, list[str]]]:
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


def read(path: Path, below: tuple[Path, ...] = ()) -> tuple[dict[str, Any], dict[str, Path]]:
    """A recipe's keys, its base's included, and the folder of the file that each key stands in.

    Raises:
        RecipeError: a file that `read_mapping` refuses; a base that leads back to its own recipe.
    """
    recipe = read_mapping(path)
    base = recipe.pop("base", None)
    folders = dict.fromkeys(recipe, path.parent)
    if base is None:
        return recipe, folders
    if not isinstance(base, str):
        raise RecipeError(f"recipe {path}: base={base!r} must be the path of another recipe")
    base_path = Path(os.path.normpath(path.parent / base))
    if base_path in (*below, path):
        raise RecipeError(f"recipe {path}: base={base} leads back to this recipe")
    beneath, their_folders = read(base_path, (*below, path))
    return beneath | recipe, their_folders | folders


def kinds_of_keys(stage: str) -> dict[str, tuple[type, ...]]:
    """Every key that the stage's recipe may have, ours and TRL's, with the kinds of value it takes."""
    schema, config = SCHEMAS[stage]
    trl = {key: kinds for key, (kinds, _) in trl_keys(config).items()} if config else {}
    return trl | kinds_of_fields(schema)


def kinds_of_fields(schema: type) -> dict[str, tuple[type, ...]]:
    hints = get_type_hints(schema)
    return {f.name: kinds_of(hints[f.name]) for f in fields(schema)}


def typed(written: dict, overrides: dict[str, list[str]], kinds: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    """The keys with values of their kinds; an override counts instead of what is written.

    Raises:
        RecipeError: unknown keys, keys that would do nothing, or values of the wrong kind.
    """
    if errors := key_errors({**written, **overrides}, kinds):
        raise RecipeError(errors)
    values, errors = {}, []
    for key in {**written, **overrides}:
        try:
            if key in overrides:
                values[key] = from_command_line(key, overrides[key], kinds[key])
            else:
                values[key] = from_yaml(key, written[key], kinds[key])
        except WrongValue as error:
            errors.append(str(error))
    if errors:
        raise RecipeError(errors)
    return values


def key_errors(given: dict[str, Any], known: Collection[str]) -> list[str]:
    """Keys that no stage has, and those that the stage or its optimizer would not use."""
    errors = per_process_errors(given, known)
    unknown = [key for key in given if key not in known and not (errors and key in PER_PROCESS)]
    errors += [f"unknown key {key!r}.{suggestion(key, known)}" for key in unknown]
    if "output_dir" in known and (unused := sorted(NOT_OURS & given.keys())):
        errors.append(f"{', '.join(unused)}: leave it out, a stage writes run_dir/STAGE and resumes by itself")
    muon = "optimizer" in known and given.get("optimizer", "muon") in ("muon", ["muon"])
    if muon and (unused := sorted(NOT_MUONS & given.keys())):
        rates = "lr_scale, matrix_lr, embedding_lr and lm_head_lr"
        errors.append(f"optimizer: muon does not use {', '.join(unused)} but {rates}")
    if "mixture" in known and (unused := sorted(NOT_MIXTURES & given.keys())):
        errors.append(f"{', '.join(unused)}: leave it out, the model's own chat template says what is trained")
    return errors


def per_process_errors(given: dict[str, Any], known: Collection[str]) -> list[str]:
    """Keys that would mean something else with another number of processes, and what to write instead."""
    instead = {
        "mixture": "batch_tokens (with packing: rows of a step x max_length) or conversations_per_step (without)",
        "problems_per_step": "problems_per_step, the word problems of a step",
        "warmdown_ratio": "batch_tokens, the tokens of a step",
    }
    errors, batch = [], next((said for key, said in instead.items() if key in known), None)
    if "gradient_accumulation_steps" in given and batch:
        errors.append(
            "gradient_accumulation_steps: leave it out, it follows from the number of processes and "
            f"per_device_train_batch_size. Write the batch of all processes: {batch}"
        )
    if "steps_per_generation" in given and "problems_per_step" in known:
        errors.append(
            "steps_per_generation: leave it out, it follows from the number of processes. Write generation_batch_size, "
            "the completions of one generation on all processes (default: those of a step)"
        )
    return errors


def built(stage: str, path: Path, values: dict[str, Any], folders: dict[str, Path]) -> Recipe:
    """The recipe of checked keys.

    Raises:
        RecipeError: values that are out of range or do not fit together.
    """
    schema, config = SCHEMAS[stage] if stage in SCHEMAS else SCHEMAS["sft"]
    own = {f.name for f in fields(schema)}
    given = {key: value for key, value in values.items() if key in own}
    errors: list[str] = []
    for name in [name for name in LISTS if name in given]:
        given[name], wrong = sources(name, given[name], folders.get(name, path.parent))
        errors += wrong
    if errors:
        raise RecipeError(errors)
    settings = schema(**given)
    trl = trl_settings(config)(**{key: v for key, v in values.items() if key not in own}) if config else None
    if trl and (errors := settings.errors_with(trl)):
        raise RecipeError(errors)
    written = without_credentials(values)
    return Recipe(stage, path, written, settings, trl)


def sources(name: str, entries: list, folder: Path) -> tuple[list[Any], list[str]]:
    """A list's lines as sources, and an error for each that is none. Identity files are found from `folder`."""
    found, errors, kinds = [], [], kinds_of_fields(LISTS[name])
    for i, entry in enumerate(entries):
        try:
            found.append(LISTS[name](**source_values(entry, folder, kinds)))
        except ValueError as error:
            reasons = "; ".join(str(error).splitlines())
            errors.append(f"{name}[{i}] = {entry}: {reasons} (keys: {', '.join(kinds)})")
    return found, errors


def source_values(entry: Any, folder: Path, kinds: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    if not isinstance(entry, dict) or "dataset" not in entry:
        raise ValueError("it must be a mapping with a dataset, such as {dataset: builtin, config: problems, rows: 100}")
    values = typed(entry, {}, kinds)
    if values["dataset"].endswith(SUFFIXES):
        values["dataset"] = os.path.normpath(folder / values["dataset"])
    return values
