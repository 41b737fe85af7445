"""GSM8K: its answers as conversations with calculator calls, and the rule by which a completion is correct.

An answer works step by step with calculator marks, `48/2 = <<48/2=24>>24 clips.`, and ends in `#### 24`.
A mark becomes a `python` part (the model writes it) and a `python_output` part (the calculator answers it).
"""

import re

from nanohf.data.row_faults import Malformed
from nanohf.generation.numbers import read_number

MARK = re.compile(r"<<([^<>]+)=([^<>=]+)>>")
FINAL = "#### "
END = "<|assistant_end|>"  # of a completion, where it is decoded with its special tokens


def final_answer(text: str) -> str | None:
    """The number after the first `#### ` in one spelling, or None: see `generation.numbers`, the one grammar."""
    _, mark, rest = text.partition(END)[0].partition(FINAL)
    return read_number(rest) if mark else None


def is_correct(completion: str, answer: str) -> bool:
    """Whether both end in a number and it is the same one."""
    given = final_answer(completion)
    return given is not None and given == final_answer(answer)


def answer_parts(answer: str) -> list[dict]:
    """Splits an answer at its marks: text, python, python_output, text, ...; all else stays as it is."""
    parts, at = [], 0
    for mark in MARK.finditer(answer):
        parts += [
            {"type": "text", "text": answer[at : mark.start()]},
            {"type": "python", "text": mark[1]},
            {"type": "python_output", "text": mark[2]},
        ]
        at = mark.end()
    parts.append({"type": "text", "text": answer[at:]})
    return [part for part in parts if part["text"]]


def conversation(row: dict) -> dict:
    """A GSM8K row as messages; contents are always lists of parts, for an Arrow column has one type.

    Raises:
        Malformed: a question or answer that is not text.
    """
    for key in ("question", "answer"):
        if not isinstance(row.get(key), str):
            raise Malformed(
                f"{key!r} is {'missing' if row.get(key) is None else f'a {type(row[key]).__name__}'}, not text"
            )
    question = [{"type": "text", "text": row["question"]}]
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer_parts(row["answer"])},
    ]
    return {"messages": messages}
