"""What can be known of a recipe's data before the first stage: each source on this machine is opened, its split found,
and its first rows are converted as the stage will do it. Of a source on the Hub, only the name is looked at.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from nanohf.data.chat_source import ChatSource
from nanohf.errors import RecipeError
from nanohf.recipe.loading import Recipe

ROWS = 20  # of each source


def check_sources(recipes: dict[str, Recipe]) -> None:
    """
    Raises:
        RecipeError: an error for each source of these stages that cannot work.
    """
    from datasets import disable_progress_bars

    disable_progress_bars()  # of twenty rows
    errors = []
    for stage, recipe in recipes.items():
        for check in source_checks(recipe):
            try:
                check()
            except (ValueError, OSError) as error:
                errors.append(f"{stage}: {' '.join(str(error).split())}")
    if errors:
        raise RecipeError(list(dict.fromkeys(errors)))


def source_checks(recipe: Recipe) -> Iterator[Callable[[], object]]:
    """One call for each source of the recipe."""
    from nanohf.data.sources import check_text

    s = recipe.settings
    if recipe.stage in ("tokenizer", "pretrain"):
        yield partial(check_text, s.dataset, s.dataset_config, s.text_column)
    for source in [*getattr(s, "mixture", ()), *getattr(s, "eval_mixture", ())]:
        if source.is_document:
            yield partial(check_text, source.dataset, source.config, source.text_column)
        else:
            yield partial(open_chat, source)
    if recipe.stage == "grpo":
        yield partial(open_word_problems, s.dataset, s.dataset_config, "train", s.dataset_rows)
        yield partial(open_word_problems, s.dataset, s.dataset_config, "test", s.eval_problems)
    if recipe.stage == "evaluate":
        yield partial(open_word_problems, s.dataset, s.dataset_config, "test", s.problems)
        yield partial(check_text, s.text_dataset, s.text_dataset_config, s.text_column)


def open_chat(source: ChatSource) -> None:
    from nanohf.data.conversations import conversations
    from nanohf.data.sources import BUILTIN, check_examples, is_local

    if source.converter == "identity":
        return
    check_examples(source.dataset, source.config, source.rows)
    if source.dataset == BUILTIN or is_local(source.dataset):
        conversations(replace(source, rows=min(source.rows or ROWS, ROWS)))


def open_word_problems(dataset: str, config: str | None, split: str, rows: int | None) -> None:
    from nanohf.data.sources import BUILTIN, check_examples, is_local
    from nanohf.data.word_problems import problems

    check_examples(dataset, config or ("problems" if dataset == BUILTIN else None), rows)
    if dataset == BUILTIN or is_local(dataset):
        problems(dataset, config, split, min(rows or ROWS, ROWS))
