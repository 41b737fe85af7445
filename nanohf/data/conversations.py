"""Conversations for midtraining and SFT: sources brought to one form. `nanohf.data.mixture` weighs and mixes them.

One form: {"messages": [{"role": str, "content": [{"type": "text" | "python" | "python_output", "text": str}]}]}.
Content is a list of parts everywhere, since Arrow wants one type over a whole column.

A row that no conversation can be made of (roles out of order, an empty message, a number for a text) is left out,
counted by reason and reported; wrong columns end in an error at once, and so does a source of which more rows are left
out than stay. A source that names no converter gets the one that its columns suggest (`detected`). Plain documents
of pretraining, mixed in so that they are not forgotten, are a source too (converter=document).
"""

import json
from collections.abc import Callable
from itertools import groupby
from typing import Any

from datasets import Dataset, Features, IterableDataset, List, Value

from nanohf.data import gsm8k, identity
from nanohf.data.chat_source import ChatSource
from nanohf.data.row_faults import Faults
from nanohf.data.sources import examples, text_stream

LETTERS = "ABCDEFGHIJ"
MESSAGES = Features(
    {"messages": List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})}
)
FAULT = Features({"fault": Value("string")})  # why a row is left out; empty if it is not
QUESTION = ("instruction", "prompt", "question")
INPUT = ("input", "context")
ANSWER = ("output", "response", "answer", "completion")


def documents(source: ChatSource) -> IterableDataset:
    """A document source's texts, {"text": str}, from the beginning of what pretraining reads."""
    return text_stream(source.dataset, source.split, source.config, source.text_column)


def conversations(source: ChatSource) -> tuple[Dataset, Faults]:
    """A source's conversations, and what is wrong with the rows that are left out.

    Raises:
        ValueError: columns that no conversation can be made of; more rows left out than stay.
    """
    table = _table(source)
    converter = source.converter or detected(source.name, table.column_names, table[0] if len(table) else {})
    check_columns(source.name, converter, table.column_names)
    table = table.map(
        _converted,
        with_indices=True,
        fn_kwargs={"converter": converter},
        remove_columns=table.column_names,
        features=Features({**MESSAGES, **FAULT}),
        load_from_cache_file=False,  # datasets knows our functions by name only, and would not see them change
    )
    faults = Faults()
    for row, fault in enumerate(table["fault"]):
        if fault:
            faults.add(row, fault)
    faults.refuse_most(f"source {source.name}", len(table))
    if faults:
        table = table.select([i for i, fault in enumerate(table["fault"]) if not fault])
    return table.remove_columns("fault"), faults


def detected(name: str, columns: list[str], first: dict) -> str:
    """The converter for a source that names none, by its columns and first row.

    Raises:
        ValueError: the columns are of no kind that is known here.
    """
    have = set(columns)
    for converter in ("messages", "sharegpt", "arc", "mmlu"):
        if set(COLUMNS[converter]) <= have:
            return converter
    if {"question", "answer"} <= have and gsm8k.final_answer(str(first.get("answer"))) is not None:
        return "gsm8k"
    if len(have & set(QUESTION)) == 1 and len(have & set(ANSWER)) == 1:
        return "instructions"
    raise ValueError(
        f"source {name}: no converter is named, and none is known for the columns {', '.join(columns)}. Set converter "
        f"({', '.join(CONVERTERS)}) and columns: {{WANTED: ITS_NAME_HERE}}."
    )


def check_columns(name: str, converter: str, columns: list[str]) -> None:
    """
    Raises:
        ValueError: the converter's columns are not all there.
    """
    if missing := [wanted for wanted in COLUMNS.get(converter, ()) if wanted not in columns]:
        raise ValueError(
            f"source {name} has no column {' and '.join(missing)} for converter={converter!r}; its columns are "
            f"{', '.join(columns)}"
        )
    if converter == "instructions":
        for names in (QUESTION, ANSWER):
            _only(dict.fromkeys(columns), names)


def _table(source: ChatSource) -> Dataset:
    """A source's rows, with the columns that its converter wants."""
    if source.converter == "identity":
        return Dataset.from_list(list(identity.rows(source.dataset, source.rows)))
    table = examples(source.dataset, source.split, source.config, source.rows)
    if not source.columns:
        return table
    if missing := [name for name in source.columns.values() if name not in table.column_names]:
        have = ", ".join(table.column_names)
        raise ValueError(f"source {source.name} has no {', '.join(missing)}; its columns are {have}")
    return table.select_columns(list(source.columns.values())).rename_columns(
        {there: wanted for wanted, there in source.columns.items()}
    )


class Malformed(ValueError):
    """A row that no conversation can be made of, where others of its source may be sound."""


def _converted(row: dict, index: int, converter: str) -> dict:
    try:
        messages = CONVERTERS[converter](row)["messages"]
        check(messages)
    except Malformed as error:
        return {"messages": [], "fault": str(error)}
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:  # nothing that a conversation has
        return {"messages": [], "fault": f"not what converter={converter} reads ({type(error).__name__}: {error})"}
    return {"messages": messages, "fault": ""}


def check(messages: list[dict]) -> None:
    """What the chat template would refuse, and what there is nothing to learn from.

    Raises:
        Malformed
    """
    roles = [message["role"] for message in messages]
    if unusual := [role for role in roles if role in ("tool", "function", "developer")]:
        raise Malformed(f"it has a message of role {unusual[0]}, which the chat template does not know")
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        raise Malformed(f"roles are {', '.join(map(str, roles))}, not user, assistant, ... after an optional system")
    for number, message in enumerate(messages, 1):
        if odd := [part["text"] for part in message["content"] if not isinstance(part["text"], str)]:
            raise Malformed(f"message {number} ({message['role']}) has a {type(odd[0]).__name__} where text belongs")
        kinds = [part["type"] for part in message["content"]]
        allowed = ("text", "python", "python_output") if message["role"] == "assistant" else ("text",)
        if unknown := [kind for kind in kinds if kind not in allowed]:
            raise Malformed(f"message {number} ({message['role']}) has a part of type {unknown[0]}")
        if any(b == "python_output" and a != "python" for a, b in zip(["", *kinds], kinds, strict=False)):
            raise Malformed(f"message {number} has a python_output part that follows no python part")
        if not any(part["text"].strip() for part in message["content"]):
            raise Malformed(f"message {number} ({message['role']}) is empty")


def text(content: str) -> list[dict]:
    return [{"type": "text", "text": content}]


def parts(content: str | list[dict] | None) -> list[dict]:
    """Contents as parts, neighbouring text joined, for the template takes one text between two calls."""
    if content is None or isinstance(content, str):
        return text(content or "")
    if not isinstance(content, list):
        raise Malformed(f"a content is a {type(content).__name__}, not text")
    joined = []
    for kind, group in groupby(content, key=lambda part: part["type"]):
        texts = [part.get("text") or "" for part in group]
        joined += [{"type": kind, "text": t} for t in (["".join(texts)] if kind == "text" else texts)]
    return joined


def from_messages(row: dict) -> dict:
    """`messages` with contents that are strings, as in smol-smoltalk, or lists of parts; an empty system is none.

    They may also be JSON text, as some exports have them.
    """
    return {"messages": _messages(row["messages"], "role", "content", {})}


SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant"}


def from_sharegpt(row: dict) -> dict:
    """`conversations` of `from` (human, gpt, system) and `value`."""
    return {"messages": _messages(row["conversations"], "from", "value", SHAREGPT_ROLES)}


def _messages(given: Any, role: str, content: str, roles: dict[str, str]) -> list[dict]:
    given = json.loads(given) if isinstance(given, str) else given
    if not isinstance(given, list) or any(not isinstance(message, dict) for message in given):
        raise Malformed("it has no list of messages" if not isinstance(given, list) else "a message is missing")
    if any(message.get("tool_calls") for message in given):
        raise Malformed("it has tool calls, which the chat template does not know")
    if odd := [message for message in given if message.get(role) is None]:
        raise Malformed(f"a message has no {role!r} but {', '.join(odd[0])}")
    messages = [{"role": roles.get(m[role], m[role]), "content": parts(m.get(content))} for m in given]
    if messages and messages[0]["role"] == "system" and not any(p["text"].strip() for p in messages[0]["content"]):
        messages = messages[1:]
    return messages


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
        raise ValueError(
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


CONVERTERS: dict[str, Callable[[dict], dict]] = {  # for the names in chat_source.CONVERTERS
    "messages": from_messages,
    "sharegpt": from_sharegpt,
    "gsm8k": gsm8k.conversation,
    "mmlu": from_mmlu,
    "arc": from_arc,
    "instructions": from_instructions,
    "identity": from_messages,  # of the conversations that nanohf.data.identity makes
}

COLUMNS = {  # that a converter cannot do without
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "gsm8k": ("question", "answer"),
    "mmlu": ("question", "choices", "answer"),
    "arc": ("question", "choices", "answerKey"),
    "identity": ("messages",),
}
