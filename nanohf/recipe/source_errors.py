"""What can be known of a recipe's data before the first stage: folders that are missing, hold no text, lack a split."""

from collections.abc import Callable, Iterator
from functools import partial

from nanohf.errors import RecipeError
from nanohf.recipe.loading import Recipe


def check_sources(recipes: dict[str, Recipe]) -> None:
    """
    Raises:
        RecipeError: an error for each source of these stages that cannot work.
    """
    errors = []
    for stage, recipe in recipes.items():
        for check in source_checks(recipe):
            try:
                check()
            except ValueError as error:
                errors.append(f"{stage}: {error}")
    if errors:
        raise RecipeError(list(dict.fromkeys(errors)))


def source_checks(recipe: Recipe) -> Iterator[Callable[[], None]]:
    """One call for each source of the recipe."""
    from nanohf.data.sources import check_examples, check_text

    s = recipe.settings
    if recipe.stage in ("tokenizer", "pretrain"):
        yield partial(check_text, s.dataset, s.dataset_config, s.text_column)
    for source in [*getattr(s, "mixture", ()), *getattr(s, "eval_mixture", ())]:
        if source.is_document:
            yield partial(check_text, source.dataset, source.config, source.text_column)
        else:
            yield partial(check_examples, source.dataset, source.config, source.rows)
    if recipe.stage in ("grpo", "evaluate"):
        kind = s.dataset_config or ("problems" if s.dataset == "builtin" else None)
        rows = s.dataset_rows if recipe.stage == "grpo" else s.problems
        yield partial(check_examples, s.dataset, kind, rows)
    if recipe.stage == "evaluate":
        yield partial(check_text, s.text_dataset, s.text_dataset_config, s.text_column)
