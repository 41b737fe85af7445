"""GSM8K: its answers as conversations with calculator calls, and the rule by which a completion is correct.

An answer works step by step with calculator marks, `48/2 = <<48/2=24>>24 clips.`, and ends in `#### 24`.
A mark becomes a `python` part (the model writes it) and a `python_output` part (the calculator answers it).
"""

import re

MARK = re.compile(r"<<([^<>]+)=([^<>=]+)>>")
FINAL = re.compile(r"#### (-?[0-9.,]+)")
NUMBER = re.compile(r"(-?)([0-9]*)(?:\.([0-9]*))?")


def final_answer(text: str) -> str | None:
    """The number after the first `#### `, in one spelling: '1,200.', '1200.0' and '1200' are all '1200'."""
    found = FINAL.search(text)
    number = NUMBER.fullmatch(found[1].replace(",", "")) if found else None
    if number is None or not (number[2] or number[3]):  # '1.2.3' or '...'
        return None
    whole, decimals = number[2].lstrip("0") or "0", (number[3] or "").rstrip("0")
    value = f"{whole}.{decimals}" if decimals else whole
    return value if value == "0" else number[1] + value


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
    """A GSM8K row as messages; contents are always lists of parts, for an Arrow column has one type."""
    missing = [key for key in ("question", "answer") if not isinstance(row.get(key), str)]
    if missing:
        raise ValueError(
            f"a GSM8K row needs texts 'question' and 'answer'; {' and '.join(missing)} missing or not text"
            f" in a row with the columns {list(row)}. Rename the dataset's columns to these."
        )
    question = [{"type": "text", "text": row["question"]}]
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer_parts(row["answer"])},
    ]
    return {"messages": messages}
