"""`nanohf doctor RECIPE_DIR`: before the hours are spent, every stage on a few of its real rows, one line a check.

Exit status 1 if any check fails, 2 if the recipes themselves are wrong.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import torch
import transformers
from transformers import AutoTokenizer

from nanohf import console
from nanohf.data.hub_names import pretrained
from nanohf.data.sources import text_stream
from nanohf.doctor import conversation_checks as chat
from nanohf.doctor import training_checks as training
from nanohf.doctor import word_problem_checks as problems
from nanohf.doctor.check_result import Result, attempt, failed
from nanohf.doctor.overlap_checks import overlaps
from nanohf.doctor.resource_checks import resources
from nanohf.doctor.source_checks import check_sources
from nanohf.doctor.text_checks import epochs
from nanohf.errors import RecipeError
from nanohf.model import NanoHFForCausalLM
from nanohf.recipe.loading import Recipe
from nanohf.recipe.recipe_folder import find_recipe_folder, load_all, run_folder, stage_arguments
from nanohf.recipe.stage_names import STAGES
from nanohf.runs import run_folder as runs
from nanohf.runs.find_model import load_model
from nanohf.tokenizer.train_bpe import SMALLEST_VOCABULARY, capped, train_tokenizer
from nanohf.train.pretrain_loop import build_model
from nanohf.train.sft_probes import chat_trainer, waken
from nanohf.train.trl_arguments import training_arguments

TOKENIZER_CHARS = 300_000  # for a stand-in, and fifty more a token: merges need text


def examine(recipe_dir: str, name: str | None = None, overrides: list[str] | None = None) -> int:
    """Prints the checks as they are done; returns the exit status.

    Raises:
        RecipeError: recipes that cannot be read, before any check.
    """
    folder = find_recipe_folder(recipe_dir)
    run_dir = run_folder(name or folder.name)
    arguments = {stage: stage_arguments(folder, run_dir, stage, overrides or [], None) for stage in STAGES}
    case = Examination(run_dir, load_all(arguments))
    quiet()

    case.show([Result("ok", "recipes", "all are read", f"{len(STAGES)} stages of {folder.name}")])
    case.show(resources(case.recipes))
    for stage, recipe in case.recipes.items():
        case.show(attempt(stage, "sources", check_sources, stage, recipe))
    if case.can_read("tokenizer"):
        case.show(attempt("tokenizer", "tokenizer", tokenizer_found, case))
    if case.can_read("tokenizer") and case.can_read("pretrain"):
        case.show(attempt("pretrain", "epochs of the text", epochs, case.recipes["pretrain"].settings, case.tokenizer))
    for stage, what, check in (
        ("midtrain", "conversations", chat_checks),
        ("sft", "conversations", chat_checks),
        ("grpo", "problems", problem_checks),
    ):
        if case.can_read("tokenizer") and case.can_read(stage):
            case.show(attempt(stage, what, check, case, stage))
        else:
            console.result(f"      {stage}: its other checks wait for the sources")
    readable = {stage: recipe for stage, recipe in case.recipes.items() if case.can_read(stage)}
    if "evaluate" in readable:
        case.show(attempt("evaluate", "test rows in training data", overlaps, readable))
    return case.verdict()


def quiet() -> None:
    """One line a check: progress bars and the libraries' own warnings would bury them."""
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for library in ("trl", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


class Examination:
    """A recipe folder under examination: its recipes, and the tokenizer and models that its stages would start from."""

    def __init__(self, run_dir: Path, recipes: dict[str, Recipe]):
        self.run_dir, self.recipes = run_dir, recipes
        self.results: list[Result] = []
        self.conversation_shown = False

    def can_read(self, stage: str) -> bool:
        """Whether its sources were found. A finished tokenizer needs none."""
        if stage == "tokenizer" and self.finished_tokenizer:
            return True
        sources = [r for r in self.results if r.stage == stage and r.what.startswith("source")]
        return all(r.status == "ok" for r in sources)

    def show(self, results: Iterable[Result]) -> None:
        for result in results:
            self.results.append(result)
            console.result(str(result))

    def verdict(self) -> int:
        """The last line, and the exit status."""
        fails, warns = (sum(r.status == status for r in self.results) for status in ("fail", "warn"))
        console.result(f"{len(self.results)} checks: {fails} failed, {warns} warned")
        return 1 if fails else 0

    @cached_property
    def finished_tokenizer(self):
        """The one pretraining takes, if there is one already."""
        try:
            source = runs.resolve(self.run_dir, self.recipes["pretrain"].settings.tokenizer)
            return AutoTokenizer.from_pretrained(**pretrained(source))
        except RecipeError:
            return None

    @cached_property
    def tokenizer(self):
        """The run's, or until that is finished one of the same size from the beginning of the same text."""
        return self.finished_tokenizer or stand_in_tokenizer(self.recipes["tokenizer"].settings)

    def source(self, stage: str) -> str | None:
        """The folder or Hub id of the model a stage starts from; None while that stage of the run is not finished."""
        try:
            return runs.resolve(self.run_dir, self.recipes[stage].settings.model_name_or_path)
        except RecipeError:
            return None

    def arguments(self, stage: str):
        """TRL's config as the stage makes it."""
        return training_arguments(self.recipes[stage], output_dir=str(self.run_dir))

    def stage_tokenizer(self, stage: str):
        source = self.source(stage)
        return AutoTokenizer.from_pretrained(**pretrained(source)) if source else self.tokenizer

    def model(self, stage: str):
        """The stage's own input, loaded as the stage does; else the pretrain recipe's model with random weights."""
        if source := self.source(stage):
            return load_model(NanoHFForCausalLM, source)
        torch.manual_seed(0)
        return build_model(self.recipes["pretrain"].settings, self.tokenizer)


def stand_in_tokenizer(config):
    """Of the recipe's size, or of half and half again as long as the slice of text does not give that many tokens."""
    stream = text_stream(config.dataset, "train", config.dataset_config, config.text_column, config.split)
    budget = min(config.max_chars, TOKENIZER_CHARS + 50 * config.vocab_size)
    texts = list(capped((row["text"] for row in stream if row["text"]), budget, config.doc_cap))
    size = config.vocab_size
    while True:
        try:
            return train_tokenizer(texts, size)
        except ValueError:
            if size // 2 < SMALLEST_VOCABULARY:
                raise
            size //= 2


def tokenizer_found(case: Examination) -> Result:
    size = f"{len(case.tokenizer):,} tokens"
    if case.finished_tokenizer is None:
        return Result("ok", "tokenizer", "stand-in until it is trained, from a slice of its text", size)
    return Result("ok", "tokenizer", "the run's", size)


def chat_checks(case: Examination, stage: str) -> Iterator[Result]:
    """midtrain or sft. A check is left out where an earlier one has shown why it could not work."""
    config, args = case.recipes[stage].settings, case.arguments(stage)
    tokenizer = case.stage_tokenizer(stage)
    conversations = chat.sample(config.mixture, args.seed)
    rows = chat.rendered(tokenizer, conversations)
    if not case.conversation_shown:
        case.conversation_shown = True
        console.result(f"--- the first conversation of {stage}; trained is what stands in [[ ]]")
        console.result(f"{chat.shown(tokenizer, *rows[0])}\n---")

    yield from attempt(stage, "tokenizer", chat.same_tokenizer, stage, tokenizer, case.finished_tokenizer)
    yield from attempt(stage, "template round trip", chat.round_trip, stage, tokenizer, conversations, rows)
    yield from attempt(stage, "one BOS", chat.one_bos, stage, tokenizer, rows)
    yield from (marks := list(attempt(stage, "template marks", chat.marks, stage, rows)))
    if failed(marks):
        return
    yield from attempt(stage, "end of turn", chat.end_of_turn, stage, tokenizer, rows)
    yield from (lengths := list(attempt(stage, "lengths", chat.lengths, stage, args.max_length, rows)))
    yield from (fits := list(attempt(stage, "input model", training.fits, stage, case.source(stage), tokenizer)))
    if not failed(lengths + fits):
        yield from attempt(stage, "trainer", trainer_checks, case, stage, tokenizer, conversations, rows)


def trainer_checks(case: Examination, stage: str, tokenizer, conversations, rows: list[tuple]) -> Iterator[Result]:
    """Those that run the model, through the very trainer of the stage."""
    args = case.arguments(stage)
    model = case.model(stage)
    waken(model)
    with TemporaryDirectory(prefix="nanohf-doctor-") as folder:
        trainer = chat_trainer(model, tokenizer, args, conversations, folder)
        yield from attempt(stage, "tokens in the loss", training.what_is_trained, stage, trainer, rows)
        yield from attempt(stage, "trainer loss = model loss", training.same_loss, stage, trainer)
        yield from attempt(stage, "no leak between packed documents", training.isolated, stage, args, trainer)
        yield from attempt(stage, "finite loss", training.finite, stage, args, trainer, rows)


def problem_checks(case: Examination, stage: str) -> Iterator[Result]:
    """grpo: the reward, and groups sampled from its input model if that is finished."""
    config, args = case.recipes[stage].settings, case.arguments(stage)
    tokenizer, source = case.stage_tokenizer(stage), case.source(stage)
    rows = problems.few(config)
    yield from attempt(stage, "tokenizer", chat.same_tokenizer, stage, tokenizer, case.finished_tokenizer)
    yield from (fits := list(attempt(stage, "input model", training.fits, stage, source, tokenizer)))
    yield from attempt(stage, "reward", problems.reward_tells, tokenizer, rows, bool(source))
    if source and not failed(fits):
        yield from attempt(stage, "groups with spread", problems.spread, tokenizer, case.model(stage), rows, args)
