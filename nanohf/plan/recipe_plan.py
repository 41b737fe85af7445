"""`nanohf plan recipes/d4`: a recipe folder's numbers for the plan's arithmetic, which knows no recipes."""

from nanohf.plan.stage_memory import card_lines
from nanohf.recipe.loading import Recipe
from nanohf.recipe.recipe_folder import find_recipe_folder, load_all, run_folder, stage_arguments
from nanohf.recipe.stage_names import CHAT_STAGES, RESULT_STAGES
from nanohf.scaling.cards import read_card
from nanohf.scaling.horizon import Stage
from nanohf.scaling.stage_steps import Part, chat_stage, problem_stage

PRETRAIN = (
    "depth", "preset", "num_attention_heads", "tokens_per_parameter", "tokens_per_scaling_parameter", "batch_tokens",
    "max_steps", "lr_scale",
)  # fmt: skip


def recipe_plan(recipe_dir: str, hardware: str | None = None) -> dict:
    """What `nanohf.plan.plan_text.make_plan` takes.

    Raises:
        RecipeError: no such folder or hardware, or anything wrong with its recipes.
    """
    card = read_card(hardware) if hardware else None
    folder = find_recipe_folder(recipe_dir)
    run_dir = run_folder(folder.name)
    recipes = load_all({stage: stage_arguments(folder, run_dir, stage, [], None) for stage in RESULT_STAGES})
    tokenizer, pretrain = recipes["tokenizer"].settings, recipes["pretrain"].settings
    found: list[tuple[Stage, list[str]]] = [
        (Stage("tokenizer", None, None, f"reads up to {tokenizer.max_chars:,} characters"), [])
    ]
    found += [planned_chat(recipes[stage]) for stage in CHAT_STAGES] + [planned_word_problems(recipes["grpo"])]
    return {name: getattr(pretrain, name) for name in PRETRAIN} | {
        "micro_batch_tokens": pretrain.per_device_train_batch_size * pretrain.max_length,
        "vocab_size": tokenizer.vocab_size,
        "stages": tuple(stage for stage, _ in found),
        "card": (f"{card.name} x {card.count}", *card_lines(recipes, card)) if card else (),
        "assumed": tuple(line for _, assumed in found for line in assumed),
    }


def planned_chat(recipe: Recipe) -> tuple[Stage, list[str]]:
    """Midtraining or SFT: its steps, and what was assumed."""
    sources = recipe.settings.mixture
    parts = [Part(s.name, s.rows, s.epochs * (1 - (s.held_out or 0)), s.share or 0.0) for s in sources]
    trl = recipe.trl
    batch = recipe.step_batch
    rows, length = batch.value // batch.tokens_per_row, trl.max_length if trl.packing else None
    return chat_stage(recipe.stage, parts, rows, length, trl.num_train_epochs, trl.max_steps)


def planned_word_problems(recipe: Recipe) -> tuple[Stage, list[str]]:
    """GRPO: its steps, and what was assumed."""
    settings, trl = recipe.settings, recipe.trl
    parts = [
        Part(
            " ".join(filter(None, (source.dataset, source.config, source.split))),
            source.rows,
            epochs=1 - (source.held_out or 0) - settings.validation,
        )
        for source in settings.ladder
    ]
    return problem_stage(
        parts,
        settings.problems_per_step,
        trl.num_generations,
        trl.max_completion_length,
        trl.num_train_epochs,
        trl.max_steps,
    )
