"""The stages, in the order they run. The only list of them."""

from nanohf.errors import RecipeError
from nanohf.recipe.values import suggestion

STAGES = ("tokenizer", "pretrain", "midtrain", "sft", "grpo", "evaluate")
MODEL_STAGES = ("pretrain", "midtrain", "sft", "grpo")  # each leaves a model
RESULT_STAGES = ("tokenizer", *MODEL_STAGES)  # each leaves a folder, which may be pushed
CHAT_STAGES = ("midtrain", "sft")  # one program, two recipes


def require_stage(stage: str) -> None:
    """
    Raises:
        RecipeError: there is no such stage.
    """
    if stage not in STAGES:
        raise RecipeError(f"unknown stage {stage!r}.{suggestion(stage, STAGES)} Stages: {', '.join(STAGES)}.")


def stages_between(first: str | None, last: str | None) -> list[str]:
    """The stages from `first` to `last`, both included; None: from the first, to the last there is."""
    for stage in filter(None, (first, last)):
        require_stage(stage)
    begin = STAGES.index(first) if first else 0
    end = STAGES.index(last) + 1 if last else len(STAGES)
    if begin >= end:
        raise RecipeError(f"--from {first} comes after --until {last}; the order is {', '.join(STAGES)}")
    return list(STAGES[begin:end])
