"""Has training seen the tests? What evaluate scores, looked for in what each stage trains on (`data.overlap`).

Tests that the package makes itself are not looked for: its generators keep people, numbers and wordings for them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from nanohf.data.chat_source import ChatSource
from nanohf.data.conversations import conversations, documents
from nanohf.data.hub_errors import first_line
from nanohf.data.overlap import Overlap, TextOverlap
from nanohf.data.sources import BUILTIN, text_stream
from nanohf.data.word_problem_source import WordProblemSource
from nanohf.data.word_problems import problems
from nanohf.doctor.check_result import Result
from nanohf.recipe.loading import Recipe
from nanohf.recipe.stage_names import CHAT_STAGES
from nanohf.tokenizer.train_bpe import capped

ROWS = 10_000  # of a training source at most
CHARACTERS = 10_000_000  # of a training text at most, which are read in some two seconds
TESTED = 2000  # rows of a test at most
TESTED_CHARACTERS = 1_000_000  # of the text for bits per byte at most
CHARACTERS_PER_TOKEN = 4  # of it, roughly
FEW = 0.01  # of a test's rows: that many can move its score by one point at most

Texts = Callable[[], Iterable[str]]


def overlaps(recipes: dict[str, Recipe]) -> Iterator[Result]:
    """One result for each test. recipes: by stage, those whose sources can be read, evaluate among them."""
    tests: dict[str, list[str]] = {}
    for test, texts in test_texts(recipes["evaluate"].settings).items():
        try:
            tests[test] = list(texts())
        except OSError as error:  # a task's dataset, which only lm-eval opens
            yield Result("warn", "evaluate", f"rows of {test} in training data", "not checked", first_line(error))
    if not tests:
        return
    wanted, sources = TextOverlap(tests), training_texts(recipes)
    found = {source: wanted.overlap(texts()) for source, texts in sources.items()}
    for test, rows in tests.items():
        seen = {source: of[test] for source, of in found.items() if of[test].seen}
        yield seen_rows(test, len(rows), seen, len(sources))


def seen_rows(test: str, rows: int, seen: dict[str, Overlap], sources: int) -> Result:
    """seen: the overlap with each source that has more than half of some row."""
    masked = set().union(*(of.seen for of in seen.values()))
    as_written = set().union(*(of.seen_as_written for of in seen.values()))
    what = f"rows of {test} in training data"
    where = ", ".join(f"{len(of.seen):,} in {source}" for source, of in seen.items())
    figure = f"{len(masked):,} of {rows:,}" + (f", {len(as_written):,} as written: {where}" if seen else "")
    figure += f"; {sources} sources, {ROWS:,} rows or {CHARACTERS / 1e6:.0f} MB of each"
    if len(masked) > FEW * rows:
        why = (
            "more than half of each such row, in windows of eight words, is trained on, so the score says little of "
            f"new ones (first: row {min(masked):,}); leave these rows out of training, or test on others"
        )
        return Result("warn", "evaluate", what, figure, why)
    return Result("ok", "evaluate", what, figure)


def test_texts(evaluate) -> dict[str, Texts]:
    """What evaluate scores, but for what the package makes: questions of word problems and tasks, held-out text."""
    texts: dict[str, Texts] = {
        source.label: partial(questions, source, "test", TESTED)
        for source in evaluate.ladder
        if source.dataset != BUILTIN
    }
    if evaluate.text_dataset != BUILTIN:
        source = (evaluate.text_dataset_config, evaluate.text_column, evaluate.text_split)
        stream = partial(text_stream, evaluate.text_dataset, "validation", *source)
        size = min(CHARACTERS_PER_TOKEN * evaluate.eval_tokens, TESTED_CHARACTERS)
        texts[f"{evaluate.text_dataset} validation"] = partial(read, stream, size)
    return texts | task_texts(evaluate.tasks, evaluate.limit)


def task_texts(tasks: list[str], limit: int | None) -> dict[str, Texts]:
    if not (tasks := [task for task in tasks if not task.startswith("nanohf_toy_")]):
        return {}
    from nanohf.evals.lm_eval_model import task_questions  # lm-eval takes seconds to load

    return {task: partial(task_questions, task, min(limit or TESTED, TESTED)) for task in tasks}


def training_texts(recipes: dict[str, Recipe]) -> dict[str, Texts]:
    """What the stages train on, by source. Of one that several stages read, where they hold out least and read most."""
    found: list[tuple[float, int, str, Texts]] = []  # held out, rows, name, texts
    if recipe := recipes.get("pretrain"):
        s = recipe.settings
        stream = partial(text_stream, s.dataset, "train", s.dataset_config, s.text_column, s.split)
        found.append((0, ROWS, f"{s.dataset} {s.dataset_config or 'documents'} {s.split}", partial(read, stream)))
    for recipe in [recipes[stage] for stage in CHAT_STAGES if stage in recipes]:
        for source in recipe.settings.mixture:
            rows = min(source.rows or ROWS, ROWS)
            few = partial(chat_texts, replace(source, rows=rows, share=None))
            found.append((source.held_out or 0, rows, source.name, few))
    if recipe := recipes.get("grpo"):
        for asked in recipe.settings.ladder:
            rows = min(asked.rows or ROWS, ROWS)
            name = " ".join(filter(None, (asked.dataset, asked.config, asked.split)))
            found.append((asked.held_out or 0, rows, name, partial(questions, asked, "train", rows)))
    found.sort(key=lambda source: (-source[0], source[1]))
    return {name: texts for *_, name, texts in found}


def read(stream: Callable, characters: int = CHARACTERS) -> Iterator[str]:
    return capped((row["text"] for row in stream()), characters, characters)


def chat_texts(source: ChatSource) -> Iterator[str]:
    """Every message of a source's conversations, or its documents."""
    if source.is_document:
        yield from read(lambda: documents(source).take(source.rows))
        return
    for messages in conversations(source)[0]["messages"]:
        yield from ("".join(part["text"] for part in message["content"]) for message in messages)


def questions(source: WordProblemSource, part: str, rows: int) -> Iterator[str]:
    return (prompt[0]["content"] for prompt in problems(source, part, rows)[0]["prompt"])
