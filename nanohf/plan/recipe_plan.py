"""`nanohf plan recipes/d4`: a recipe folder's numbers for the plan's arithmetic, which knows no recipes."""

from pathlib import Path

from nanohf.pipeline import check, recipe_folder, stage_arguments
from nanohf.scaling.horizon import Stage
from nanohf.scaling.stage_steps import Part, chat_stage, problem_stage

PRETRAIN = ("depth", "preset", "num_attention_heads", "tokens_per_parameter", "tokens_per_scaling_parameter")
PRETRAIN += ("batch_tokens", "max_steps", "lr_scale")


def of_recipes(recipe_dir: str) -> dict:
    """What `nanohf.plan.plan_text.plan` takes.

    Raises:
        RecipeError: no such folder, or anything wrong with its recipes.
    """
    recipes = recipe_folder(recipe_dir)
    stages = ("tokenizer", "pretrain", "midtrain", "sft", "grpo")
    run_dir = Path("runs") / recipes.name
    configs = check({stage: stage_arguments(recipes, run_dir, stage, [], None) for stage in stages})
    (tokenizer,), (pretrain,) = configs["tokenizer"], configs["pretrain"]
    found = [(Stage("tokenizer", None, None, f"reads up to {tokenizer.max_chars:,} characters"), [])]
    found += [of_chat(name, *configs[name]) for name in ("midtrain", "sft")] + [of_problems(*configs["grpo"])]
    return {name: getattr(pretrain, name) for name in PRETRAIN} | {
        "one_pass": pretrain.per_device_train_batch_size * pretrain.max_length,
        "vocab_size": tokenizer.vocab_size,
        "stages": tuple(stage for stage, _ in found),
        "assumed": ("one process", *(line for _, assumed in found for line in assumed)),
    }


def of_chat(name: str, stage, args) -> tuple[Stage, list[str]]:
    parts = [Part(source.name, source.rows, source.epochs, source.share or 0.0) for source in stage.mixture]
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return chat_stage(
        name, parts, rows, args.max_length if args.packing else None, args.num_train_epochs, args.max_steps
    )


def of_problems(stage, args) -> tuple[Stage, list[str]]:
    name = " ".join(filter(None, (stage.dataset, stage.dataset_config, "train")))
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps // args.num_generations
    return problem_stage(
        Part(name, stage.dataset_rows),
        per_step,
        args.num_generations,
        args.max_completion_length,
        args.num_train_epochs,
        args.max_steps,
    )
