"""Conversations for midtraining and SFT: sources brought to one form. `nanohf.data.mixture` weighs and mixes them.

One form: {"messages": [{"role": str, "content": [{"type": "text" | "python" | "python_output", "text": str}]}]}.
Content is a list of parts everywhere, since Arrow wants one type over a whole column.

A row that no conversation can be made of (roles out of order, an empty message, a number for a text) is left out,
counted by reason and reported. Wrong columns end in an error at once, and so does a source of which more than half the
rows would be left out. Plain documents of pretraining, mixed in so that they are not forgotten, are a source too
(converter=document).

A source that names no converter gets the first of these that its columns allow:
    messages        `messages`
    sharegpt        `conversations`
    arc             `question`, `choices`, `answerKey`
    mmlu            `question`, `choices`, `answer`
    gsm8k           `question`, `answer`, and one of the first twenty answers has a `#### ` line
    instructions    one of `instruction`, `prompt`, `question`, and one of `output`, `response`, `answer`, `completion`
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, groupby
from typing import Any

from datasets import Dataset, Features, IterableDataset, List, Value

from nanohf.data import gsm8k, identity, stories
from nanohf.data.chat_source import CONVERTERS, ChatSource
from nanohf.data.question_split import place
from nanohf.data.row_faults import Faults, Malformed
from nanohf.data.sources import text_stream
from nanohf.data.tables import RowFormat, Table, open_head, open_table, plain_table
from nanohf.data.tool_calls import with_calculator_calls
from nanohf.errors import RecipeError

LETTERS = "ABCDEFGHIJ"
MESSAGES = Features(
    {"messages": List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})}
)
FAULT = Features({"fault": Value("string")})  # why a row is left out; empty if it is not
QUESTION = ("instruction", "prompt", "question")
INPUT = ("input", "context")
ANSWER = ("output", "response", "answer", "completion")
SURROGATE = re.compile("[\ud800-\udfff]")
FIRST = 20  # rows, by which a source without a converter is known


def documents(source: ChatSource) -> IterableDataset:
    """A document source's texts, {"text": str}, from the beginning of what pretraining reads."""
    return text_stream(source.dataset, source.split, source.config, source.text_column)


def conversations(source: ChatSource, measured: bool = False) -> tuple[Dataset, Faults]:
    """A source's conversations, and what is wrong with the rows that are left out.

    measured: where the source has `held_out`, those that are held out instead of those to train on.

    Raises:
        RecipeError: columns that no conversation can be made of; more rows left out than stay; none on this side.
    """
    rows, faults = _conversations(source, source_table(source), measured)
    if not len(rows):
        raise RecipeError(none_left(source))
    return rows, faults


def none_left(source: ChatSource) -> str:
    why = f": held_out={source.held_out:g} leaves none on this side" if source.held_out else ""
    return f"source {source.name} gives no row{why}"


def on_this_side(messages: list[dict], held_out: float, measured: bool) -> bool:
    """Whether this conversation, by what the user says first, is one of those to train on, or to measure."""
    user = next(message for message in messages if message["role"] == "user")
    return (place("".join(part["text"] for part in user["content"])) < held_out) == measured


def first_conversations(source: ChatSource) -> tuple[Dataset, Faults]:
    """The same of the first rows, without a download of the whole source.

    Raises:
        RecipeError: also a Hub that does not answer.
        NotChecked: offline, and not in the cache.
    """
    table = open_head(source.dataset, source.split, source.config, source.rows)
    return _conversations(source, table.rename(source.columns, source.name) if source.columns else table)


def _conversations(source: ChatSource, table: Table, measured: bool = False) -> tuple[Dataset, Faults]:
    rows = table.data.map(
        reader(source, table, measured),
        remove_columns=table.data.column_names,
        features=Features({**MESSAGES, **FAULT}),
        load_from_cache_file=False,  # datasets knows our functions by name only, and would not see them change
    )
    faults = Faults()
    for row, fault in enumerate(rows["fault"]):
        if fault:
            faults.add(row, fault)
    faults.refuse_most(f"source {source.name}", len(rows))
    rows = rows.select([i for i, messages in enumerate(rows["messages"]) if messages])
    return rows.remove_columns("fault"), faults


def reader(source: ChatSource, table: Table, measured: bool) -> Callable[[dict], dict]:
    """Makes {messages, fault} of a stored row: `converted`, with what the source says.

    Raises:
        RecipeError: as `converter_of`.
    """
    converter = converter_of(source, table)
    return partial(converted, converter=converter, form=table.format, held_out=source.held_out, measured=measured)


def converter_of(source: ChatSource, table: Table) -> str:
    """The converter that the source names, or the one that its columns suggest.

    Raises:
        RecipeError: no row; no converter for these columns, or columns that it lacks.
    """
    if not len(table):
        raise RecipeError(f"source {source.name} has no row")
    converter = source.converter or detected(source.name, table)
    check_columns(source.name, converter, table.columns)
    return converter


def detected(name: str, table: Table) -> str:
    """The converter for a source that names none, by its columns and first rows: the module's docstring has the rule.

    Raises:
        RecipeError: the columns are of no kind that is known here.
    """
    have = set(table.columns)
    for converter in ("messages", "sharegpt", "arc", "mmlu"):
        if set(COLUMNS[converter]) <= have:
            return converter
    if {"question", "answer"} <= have and any(gsm8k.FINAL in str(answer) for answer in _first(table, "answer")):
        return "gsm8k"
    if len(have & set(QUESTION)) == 1 and len(have & set(ANSWER)) == 1:
        return "instructions"
    raise RecipeError(
        f"source {name}: no converter is named, and none is known for the columns {', '.join(table.columns)}. "
        f"Set converter ({', '.join(CONVERTERS)}) and columns: {{WANTED: ITS_NAME_HERE}}."
    )


def _first(table: Table, column: str) -> Iterator[Any]:
    for row in table.data.select(range(min(FIRST, len(table)))):
        try:
            yield table.format.read(row)[column]
        except Malformed:  # a row that is left out later
            continue


def check_columns(name: str, converter: str, columns: list[str]) -> None:
    """
    Raises:
        RecipeError: the converter's columns are not all there.
    """
    if missing := [wanted for wanted in COLUMNS.get(converter, ()) if wanted not in columns]:
        raise RecipeError(
            f"source {name} has no column {' and '.join(missing)} for converter={converter!r}; its columns are "
            f"{', '.join(columns)}"
        )
    if converter == "instructions":
        for names in (QUESTION, ANSWER):
            _only(dict.fromkeys(columns), names)


def source_table(source: ChatSource) -> Table:
    """A source's rows, with the columns that its converter wants."""
    if source.converter == "identity":
        return plain_table(Dataset.from_list(list(identity.rows(source.dataset, source.rows))))
    table = open_table(source.dataset, source.split, source.config, source.rows)
    return table.rename(source.columns, source.name) if source.columns else table


def converted(row: dict, converter: str, form: RowFormat, held_out: float | None, measured: bool) -> dict:
    """A stored row's {messages, fault}: no messages where there is a fault, or where it is for the other side."""
    try:
        messages = CONVERT[converter](form.read(row))["messages"]
        check(messages)
    except Malformed as error:
        return {"messages": [], "fault": str(error)}
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:  # nested values of other kinds
        return {"messages": [], "fault": f"not what converter={converter} reads ({type(error).__name__}: {error})"}
    taken = held_out is None or on_this_side(messages, held_out, measured)
    return {"messages": messages if taken else [], "fault": ""}


def check(messages: list[dict]) -> None:
    """What the chat template would refuse, and what there is nothing to learn from.

    Raises:
        Malformed
    """
    check_roles([message["role"] for message in messages])
    for message in messages:
        role, texts = message["role"], [part["text"] for part in message["content"]]
        if any(map(SURROGATE.search, texts)):
            raise Malformed(f"a content of the {role}'s has half of a surrogate pair, which UTF-8 cannot hold")
        kinds = [part["type"] for part in message["content"]]
        allowed = ("text", "python", "python_output") if role == "assistant" else ("text",)
        if unknown := [kind for kind in kinds if kind not in allowed]:
            raise Malformed(f"a content of the {role}'s has a part of type {unknown[0]}")
        if any(b == "python_output" and a != "python" for a, b in zip(["", *kinds], kinds, strict=False)):
            raise Malformed("a python_output part follows no python part")
        if not any(text.strip() for text in texts):
            raise Malformed(f"a message of the {role}'s is empty")


def check_roles(roles: list[str]) -> None:
    """user, assistant, ... after an optional system, and the assistant has the last word.

    Raises:
        Malformed
    """
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns:
        raise Malformed("it has no messages")
    for role, expected in zip(turns, cycle(("user", "assistant")), strict=False):
        if role != expected:
            raise Malformed(f"a message of role {role} where {expected} should speak")
    if len(turns) % 2:
        raise Malformed("the last message is the user's")


def text(content: str) -> list[dict]:
    return [{"type": "text", "text": content}]


def parts(content: Any) -> list[dict]:
    """Contents as parts, neighbouring text joined, for the template takes one text between two calls.

    Raises:
        Malformed: neither text nor a list of parts {type, text}.
    """
    if content is None or isinstance(content, str):
        return text(content or "")
    if not isinstance(content, list):
        raise Malformed(f"a content is {type(content).__name__}, not text")
    if any(not isinstance(part, dict) or not isinstance(part.get("type"), str) for part in content):
        raise Malformed("a content is a list of something else than parts with type and text")
    if any(not isinstance(part.get("text"), str | None) for part in content):
        raise Malformed("a part's text is not text")
    joined = []
    for kind, group in groupby(content, key=lambda part: part["type"]):
        texts = [part.get("text") or "" for part in group]
        joined += [{"type": kind, "text": t} for t in (["".join(texts)] if kind == "text" else texts)]
    return joined


def from_messages(row: dict) -> dict:
    """`messages` of `role` and `content`, a text, as in smol-smoltalk, or parts; an empty system message is none.

    They may also be JSON text, as some exports have them. Tool calls must be the calculator's (`data.tool_calls`).
    """
    return {"messages": _messages(row["messages"])}


def from_sharegpt(row: dict) -> dict:
    """`conversations` of `from` (human, gpt, system and their other names) and `value`; `role` and `content` do too."""
    return {"messages": _messages(row["conversations"])}


ROLES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "developer": "system",
    "observation": "tool",
}


def _messages(given: Any) -> list[dict]:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise Malformed("its messages are text that is not JSON") from None
    if not isinstance(given, list):
        raise Malformed("it has no list of messages")
    messages = with_calculator_calls([_message(message) for message in given])
    spoken: list[dict] = []
    for message in messages:
        content = parts(message["content"])
        if message["role"] != "system" or any(p["text"].strip() for p in content) or spoken:
            spoken.append({"role": message["role"], "content": content})
    return spoken


def _message(given: Any) -> dict:
    """One message by the names that OpenAI gives."""
    if not isinstance(given, dict):
        raise Malformed("a message is missing" if given is None else f"a message is a {type(given).__name__}")
    role = given.get("role", given.get("from"))
    content: Any = given.get("content", given.get("value"))
    if not isinstance(role, str):
        raise Malformed(f"a message has no role but {', '.join(name for name in given if given[name] is not None)}")
    if role == "function_call":  # as ShareGPT has it
        call = json.loads(content)
        return {"role": "assistant", "content": [], "tool_calls": [{"function": call}]}
    if given.get("function_call"):
        raise Malformed("it has a function_call, not tool_calls")
    return {"role": ROLES.get(role, role), "content": parts(content)} | {
        key: given.get(key) for key in ("tool_calls", "tool_call_id")
    }


def from_instructions(row: dict) -> dict:
    """One of `instruction`, `prompt`, `question`, one of `output`, `response`, `answer`, `completion`: alpaca, dolly.

    `input` or `context`, if there is one, follows the question after an empty line.
    """
    names = [_only(row, QUESTION), *[name for name in INPUT if name in row][:1], _only(row, ANSWER)]
    for name in names:
        if not isinstance(row[name], str | None):
            raise Malformed(f"column {name!r} is a {type(row[name]).__name__}, not text")
    *question, answer = [(row[name] or "").strip() for name in names]
    return _exchange("\n\n".join(filter(None, question)) if question[0] else "", answer)


def _only(row: dict, names: tuple[str, ...]) -> str:
    found = [name for name in names if name in row]
    if len(found) != 1:
        raise RecipeError(
            f"converter='instructions' needs exactly one of the columns {', '.join(names)}; "
            f"there are {', '.join(row)}. Choose with columns: {{{names[0]}: ITS_NAME_HERE, ...}}."
        )
    return found[0]


def from_mmlu(row: dict) -> dict:
    """`question`, `choices` (strings) and `answer` (index): cais/mmlu."""
    return _multiple_choice(row["question"], row["choices"], row["answer"])


def from_arc(row: dict) -> dict:
    """`question`, `choices` {text, label} and `answerKey` (a label): allenai/ai2_arc."""
    question, choices, key = row["question"], row["choices"], row["answerKey"]
    answer = choices["label"].index(key) if key in choices["label"] else -1
    return _multiple_choice(question, choices["text"], answer)


def _multiple_choice(question: str, choices: list[str], answer: int) -> dict:
    if not 0 <= answer < len(choices) <= len(LETTERS):
        raise Malformed(f"the answer is none of the {len(choices)} choices, or these are over {len(LETTERS)}")
    lines = [f"{LETTERS[i]}. {choice}" for i, choice in enumerate(choices)]
    return _exchange("\n".join([question, *lines, "Answer with the letter only."]), LETTERS[answer])


def _exchange(question: str, answer: str) -> dict:
    messages = [{"role": "user", "content": text(question)}, {"role": "assistant", "content": text(answer)}]
    return {"messages": messages}


CONVERT: dict[str, Callable[[dict], dict]] = {  # for each of CONVERTERS but document
    "messages": from_messages,
    "sharegpt": from_sharegpt,
    "gsm8k": gsm8k.conversation,
    "mmlu": from_mmlu,
    "arc": from_arc,
    "instructions": from_instructions,
    "story": stories.conversation,
    "identity": from_messages,  # of the conversations that nanohf.data.identity makes
}

COLUMNS = {  # that a converter cannot do without
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "gsm8k": ("question", "answer"),
    "mmlu": ("question", "choices", "answer"),
    "arc": ("question", "choices", "answerKey"),
    "story": ("text",),
    "identity": ("messages",),
}
