"""What can be known of a recipe's data before the first stage: each source is opened, here or on the Hub, its split is
found, and its first rows are read and converted as the stage will do it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from nanohf import console
from nanohf.data.chat_source import ChatSource
from nanohf.data.word_problem_source import WordProblemSource
from nanohf.errors import RecipeError
from nanohf.recipe.loading import Recipe


@dataclass(frozen=True)
class SourceCheck:
    """One source of a stage. open(): reads the first rows; raises RecipeError, or NotChecked offline."""

    name: str
    open: Callable[[], object]


def check_sources(recipes: dict[str, Recipe]) -> None:
    """
    Raises:
        RecipeError: an error for each source of these stages that cannot work.
    """
    from datasets import disable_progress_bars

    from nanohf.data.hub_errors import NotChecked

    disable_progress_bars()  # of a few rows
    errors: dict[str, None] = {}
    opened: set[str] = set()
    for stage, recipe in recipes.items():
        for check in source_checks(recipe):
            if repr(check.open) in opened:  # the same source of several stages
                continue
            opened.add(repr(check.open))
            try:
                check.open()
            except NotChecked as error:
                console.warning(f"{stage}: {error}; it is not checked before the run")
            except (ValueError, OSError) as error:
                errors[f"{stage}: {' '.join(str(error).split())}"] = None
    if errors:
        raise RecipeError(list(errors))


def source_checks(recipe: Recipe) -> Iterator[SourceCheck]:
    """What opens each source of the recipe. Doctor and `nanohf run` have it from here."""
    s = recipe.settings
    if recipe.stage in ("tokenizer", "pretrain"):
        yield _text(s.dataset, s.dataset_config, s.text_column, s.split)
    for source in [*getattr(s, "mixture", ()), *getattr(s, "eval_mixture", ())]:
        if source.is_document:
            yield _text(source.dataset, source.config, source.text_column)
        elif source.converter != "identity":  # its file was read with the recipe
            yield _chat(source)
    if recipe.stage == "grpo":
        yield from (_word_problems(source, "train") for source in s.ladder)
    if recipe.stage == "evaluate":
        yield from (_word_problems(source, "test", s.problems) for source in s.ladder)
        yield _text(s.text_dataset, s.text_dataset_config, s.text_column, s.text_split)


def _text(dataset: str, config: str | None, column: str, split: str = "train") -> SourceCheck:
    from nanohf.data.sources import check_text

    return SourceCheck(
        _name("text", dataset, config, column, split), partial(check_text, dataset, config, column, split)
    )


def _chat(source: ChatSource) -> SourceCheck:
    from nanohf.data.conversations import first_conversations

    name = _name("conversations", source.name, source.converter, source.columns)
    return SourceCheck(name, partial(first_conversations, source))


def _word_problems(source: WordProblemSource, part: str, count: int | None = None) -> SourceCheck:
    from nanohf.data.word_problems import first_problems

    name = _name("word problems", source.dataset, source.config, part)
    return SourceCheck(name, partial(first_problems, source, part, count))


def _name(kind: str, *parts: Any) -> str:
    return " ".join([kind, *(str(part) for part in parts if part)])
