"""Conversations for midtraining and SFT: sources brought to one form, weighted, mixed and shuffled.

One form: {"messages": [{"role": str, "content": [{"type": "text" | "python" | "python_output", "text": str}]}]}.
Content is a list of parts everywhere, since Arrow wants one type over a whole column.
"""

from collections.abc import Callable
from dataclasses import dataclass

from datasets import Dataset, Features, List, Value, concatenate_datasets

from . import gsm8k
from .sources import examples

LETTERS = "ABCDEFGHIJ"
MESSAGES = Features(
    {"messages": List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})}
)


@dataclass
class Source:
    """One line of a mixture: which examples, how they become conversations, and how often they are seen.

    dataset: builtin, a folder or a Hub id; config: its configuration; rows: only the first so many;
    epochs: how often each is seen, 0.5 the first half only once, 2.5 the first half three times.
    """

    dataset: str
    converter: str
    config: str | None = None
    split: str = "train"
    rows: int | None = None
    epochs: float = 1.0

    def __post_init__(self):
        if self.converter not in CONVERTERS:
            raise ValueError(f"converter={self.converter!r} must be one of {', '.join(CONVERTERS)}")
        if self.epochs <= 0:
            raise ValueError(f"epochs={self.epochs} must be above 0; leave the source out instead")


def mixture(sources: list[Source], seed: int = 0) -> tuple[Dataset, list[tuple[str, int]]]:
    """All sources' conversations, each as often as its epochs say, shuffled; and how many each one gave.

    Raises:
        ValueError: a source gives no conversation, or lacks its converter's columns.
    """
    parts, counts = [], []
    for source in sources:
        table = examples(source.dataset, source.split, source.config, source.rows)
        convert = CONVERTERS[source.converter]
        try:
            table = table.map(convert, remove_columns=table.column_names, features=MESSAGES)
        except KeyError as error:
            have = ", ".join(table.column_names)
            raise ValueError(
                f"source {source.dataset} ({source.split}) has no {error} for converter={source.converter!r}; "
                f"its columns are {have}"
            ) from error
        order = range(round(len(table) * source.epochs))
        table = table.select([i % len(table) for i in order])
        if not len(table):
            raise ValueError(f"source {source.dataset} ({source.split}) gives no conversation")
        parts.append(table)
        counts.append((" ".join(filter(None, (source.dataset, source.config, source.split))), len(table)))
    return concatenate_datasets(parts).shuffle(seed=seed), counts


def text(content: str) -> list[dict]:
    return [{"type": "text", "text": content}]


def from_messages(row: dict) -> dict:
    """`messages` with string contents, as in smol-smoltalk."""
    return {"messages": [{"role": m["role"], "content": text(m["content"])} for m in row["messages"]]}


def from_mmlu(row: dict) -> dict:
    """`question`, `choices` (strings) and `answer` (index): cais/mmlu."""
    return _multiple_choice(row["question"], row["choices"], row["answer"])


def from_arc(row: dict) -> dict:
    """`question`, `choices` {text, label} and `answerKey` (a label): allenai/ai2_arc."""
    return _multiple_choice(row["question"], row["choices"]["text"], row["choices"]["label"].index(row["answerKey"]))


def _multiple_choice(question: str, choices: list[str], answer: int) -> dict:
    lines = [f"{LETTERS[i]}. {choice}" for i, choice in enumerate(choices)]
    prompt = "\n".join([question, *lines, "Answer with the letter only."])
    return {
        "messages": [
            {"role": "user", "content": text(prompt)},
            {"role": "assistant", "content": text(LETTERS[answer])},
        ]
    }


CONVERTERS: dict[str, Callable[[dict], dict]] = {
    "messages": from_messages,
    "gsm8k": gsm8k.conversation,
    "mmlu": from_mmlu,
    "arc": from_arc,
}
