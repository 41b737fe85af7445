"""Chat sources: each converter against a conversation written by hand, and what is left out."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from nanohf.data.chat_source import ChatSource
from nanohf.data.conversations import (
    MESSAGES,
    conversations,
    from_arc,
    from_instructions,
    from_messages,
    from_mmlu,
    from_sharegpt,
)
from nanohf.data.tables import open_table

ROOT = Path(__file__).parents[2]
REAL = os.environ.get("NANOHF_TEST_DATA")
LETTERS_ONLY = "Answer with the letter only."
pytestmark = pytest.mark.usefixtures("offline")


def said(role: str, *parts: str | tuple[str, str]) -> dict:
    content = [("text", part) if isinstance(part, str) else part for part in parts]
    return {"role": role, "content": [{"type": kind, "text": text} for kind, text in content]}


def exchanges(*names: str) -> list[dict]:
    return [{"messages": [{"role": "user", "content": n}, {"role": "assistant", "content": n + "!"}]} for n in names]


def write(folder: Path, rows: list[dict], split: str = "train") -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def seen(table) -> Counter:
    return Counter(messages[0]["content"][0]["text"] for messages in table["messages"])


# ---------------------------------------------------------------- converters


def test_messages():
    row = {"messages": [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "u"), ("assistant", "a"))]}
    assert from_messages(row) == {"messages": [said("system", "s"), said("user", "u"), said("assistant", "a")]}


def test_mmlu():
    row = {"question": "2+2?", "subject": "sums", "choices": ["3", "4", "5", "6"], "answer": 1}
    question = f"2+2?\nA. 3\nB. 4\nC. 5\nD. 6\n{LETTERS_ONLY}"
    assert from_mmlu(row) == {"messages": [said("user", question), said("assistant", "B")]}


def test_messages_in_parts():
    calls = [("text", "a"), ("text", "b"), ("python", "1"), ("python", "2"), ("python_output", "2"), ("text", "c")]
    content = [{"type": kind, "text": text, "image": None} for kind, text in calls]
    row = {"messages": [{"role": "user", "content": content[:2]}, {"role": "assistant", "content": content}]}
    reply = said("assistant", "ab", ("python", "1"), ("python", "2"), ("python_output", "2"), "c")
    assert from_messages(row) == {"messages": [said("user", "ab"), reply]}


def test_an_empty_system_message_is_none():
    row = exchanges("a")[0]
    system = {"messages": [{"role": "system", "content": " "}, *row["messages"]]}
    assert from_messages(system) == from_messages(row)


@pytest.mark.parametrize("question", ["instruction", "prompt", "question"])
@pytest.mark.parametrize("answer", ["output", "response", "answer", "completion"])
def test_instructions(question, answer):
    expected = {"messages": [said("user", "Q?"), said("assistant", "A.")]}
    assert from_instructions({question: "Q?", answer: " A.", "other": 1}) == expected
    assert from_instructions({question: "Q?", answer: "A.", "input": ""}) == expected
    for more in ("input", "context"):
        row = {question: "Q?", more: "more\n", answer: "A."}
        assert from_instructions(row) == {"messages": [said("user", "Q?\n\nmore"), said("assistant", "A.")]}


@pytest.mark.parametrize(("labels", "key"), [("ABC", "C"), ("123", "3")])
def test_arc(labels, key):
    row = {"question": "Q?", "choices": {"text": ["x", "y", "z"], "label": list(labels)}, "answerKey": key}
    question = f"Q?\nA. x\nB. y\nC. z\n{LETTERS_ONLY}"
    assert from_arc(row) == {"messages": [said("user", question), said("assistant", "C")]}


def test_gsm8k(tmp_path):
    row = {"question": "How many?", "answer": "It is 2+3=<<2+3=5>>5.\n#### 5"}
    table, _ = conversations(ChatSource(write(tmp_path / "a", [row]), "gsm8k"))
    reply = said("assistant", "It is 2+3=", ("python", "2+3"), ("python_output", "5"), "5.\n#### 5")
    assert table.to_list() == [{"messages": [said("user", "How many?"), reply]}]


def test_columns_by_other_names(tmp_path):
    row = {"q": "Q?", "prompt": "no", "instruction": "no", "a": "A."}
    folder = write(tmp_path / "a", [row])
    table, _ = conversations(ChatSource(folder, "instructions", columns={"question": "q", "answer": "a"}))
    assert table.to_list() == [{"messages": [said("user", "Q?"), said("assistant", "A.")]}]
    with pytest.raises(ValueError, match="has no p; its columns are q, prompt, instruction, a"):
        conversations(ChatSource(folder, "instructions", columns={"question": "p"}))


# ---------------------------------------------------------------- malformed rows

GOOD = exchanges(*"abcdefgh")
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def odd(*said: tuple[str, str | None]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in said]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (odd(), "it has no messages"),
        (odd(("system", "a")), "it has no messages"),
        (odd(("user", "a")), "the last message is the user's"),
        (odd(("user", "a"), ("user", "b"), ("assistant", "c")), "a message of role user where assistant should speak"),
        (odd(("assistant", "a"), ("user", "b")), "a message of role assistant where user should speak"),
        (odd(("system", "a"), ("system", "b"), ("user", "a")), "a message of role system where user should speak"),
        (odd(("user", "a"), ("assistant", "c"), ("system", "x")), "a message of role system where user should speak"),
        (odd(("user", "a"), ("tool", "c")), "a tool's answer follows no call"),
        (odd(("user", "a"), ("critic", "c")), "a message of role critic where assistant should speak"),
        (odd(("user", "a"), ("assistant", " \n")), "a message of the assistant's is empty"),
        (odd(("user", ""), ("assistant", "b")), "a message of the user's is empty"),
        (odd(("user", "a"), ("assistant", None)), "a message of the assistant's is empty"),
        (odd(("user", "a"), ("assistant", 4)), "a content is int, not text"),
        (odd(("user", "a"), ("assistant", {"b": 1})), "a content is dict, not text"),
        (odd(("user", "a"), ("assistant", ["b"])), "a content is a list of something else than parts"),
        (odd(("user", "a"), ("assistant", "\ud83d")), "a content of the assistant's has half of a surrogate pair"),
        (odd((None, "a"), ("assistant", "b")), "a message has no role but content"),
        ({"messages": [*TALK, None]}, "a message is missing"),
        ({"messages": [*TALK, "and"]}, "a message is a str"),
        ({"messages": None}, "it has no list of messages"),
        ({"messages": 7}, "it has no list of messages"),
        ({"messages": {"role": "user", "content": "a"}}, "it has no list of messages"),
        ({"messages": "not JSON"}, "its messages are text that is not JSON"),
        ({"other": 1}, "it has no list of messages"),
        ([1, 2], "the line is a JSON list, not an object"),
    ],
)
def test_a_malformed_row_is_left_out_and_reported(tmp_path, row, reason):
    table, faults = conversations(ChatSource(write(tmp_path / "a", [*GOOD[:3], row, *GOOD[3:], row]), "messages"))
    assert seen(table) == dict.fromkeys("abcdefgh", 1)
    ((found, count),) = faults.counts.items()
    assert found.startswith(reason)
    assert (count, faults.first[found]) == (2, 3)
    assert faults.summary() == f"2 x {found} (first: row 3)"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([("image", None)], "a content of the assistant's has a part of type image"),
        ([("text", "a"), ("python_output", "4")], "a python_output part follows no python part"),
        ([("text", ""), ("python", " ")], "a message of the assistant's is empty"),
        ([], "a message of the assistant's is empty"),
    ],
)
def test_malformed_parts(tmp_path, parts, reason):
    sound = {"messages": [said("user", "a"), said("assistant", "b")]}
    row = {"messages": [said("user", "a"), said("assistant", *parts)]}
    table, faults = conversations(ChatSource(write(tmp_path / "a", [sound, row]), "messages"))
    assert len(table) == 1
    assert (faults.counts, faults.first) == ({reason: 1}, {reason: 1})


def test_malformed_rows_of_other_converters(tmp_path):
    mmlu = {"question": "?", "choices": ["a", "b"], "answer": 1}
    arc = {"question": "?", "choices": {"text": ["a"], "label": ["1"]}, "answerKey": "1"}
    plain = {"prompt": "a", "response": "b"}
    sources = [
        ChatSource(write(tmp_path / "mmlu", [mmlu, mmlu | {"answer": -1}]), "mmlu"),
        ChatSource(write(tmp_path / "arc", [arc, arc | {"answerKey": "2"}]), "arc"),
        ChatSource(write(tmp_path / "plain", [plain, plain | {"response": None}, plain]), "instructions"),
        ChatSource(write(tmp_path / "gsm8k", [{"question": "a", "answer": a} for a in ("b", " ")]), "gsm8k"),
    ]
    assert [len(conversations(source)[1]) for source in sources] == [1, 1, 1, 1]


def test_a_source_that_is_mostly_malformed(tmp_path):
    bad = odd(("user", "a"), ("assistant", ""))
    with pytest.raises(
        ValueError, match=r"a train: 2 of 3 rows are malformed, and at most half of a source may be: 2 x a message of"
    ):
        conversations(ChatSource(write(tmp_path / "a", [bad, GOOD[0], bad]), "messages"))


# ---------------------------------------------------------------- mistakes


def test_unknown_converter():
    with pytest.raises(ValueError, match="converter='smoltalk' must be one of messages, sharegpt, gsm8k, mmlu, arc"):
        ChatSource("builtin", "smoltalk")


@pytest.mark.parametrize("epochs", [0, -1.0])
def test_no_epochs(epochs):
    with pytest.raises(ValueError, match="must be above 0"):
        ChatSource("builtin", "messages", epochs=epochs)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "needs rows, a number of documents, or share"),
        ({"rows": 5, "share": 0.1}, "one of the two"),
        ({"share": 0}, "share=0 must be between 0 and 1"),
        ({"share": 20}, "share=20 must be between 0 and 1: 0.2 is a fifth"),
        ({"share": 0.2, "epochs": 2}, "without epochs"),
        ({"rows": 5, "split": "test"}, "split='test' must be train or validation"),
    ],
)
def test_documents_without_a_sound_amount(settings, says):
    with pytest.raises(ValueError, match=says):
        ChatSource("builtin", "document", **settings)


def test_a_share_of_conversations():
    with pytest.raises(ValueError, match="share is for converter=document"):
        ChatSource("builtin", "messages", config="conversations", rows=5, share=0.1)


@pytest.mark.parametrize("converter", ["gsm8k", "mmlu", "arc"])
def test_a_converter_for_other_columns(tmp_path, converter):
    folder = write(tmp_path / "a", exchanges("a"))
    with pytest.raises(ValueError, match=r"question.*messages"):
        conversations(ChatSource(folder, converter))


def test_messages_without_messages():
    with pytest.raises(
        ValueError, match="has no column messages for converter='messages'; its columns are question, answer"
    ):
        conversations(ChatSource("builtin", "messages", config="problems", rows=2))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"ask": "a", "reply": "b"}, r"exactly one of the columns instruction, prompt, question; there are ask, reply"),
        ({"prompt": "a", "reply": "b"}, r"one of the columns output, .*, completion; there are prompt, reply"),
        ({"prompt": "a", "question": "b", "answer": "c"}, r"exactly one .*; there are prompt, question, answer"),
        ({"prompt": ["a"], "answer": "c"}, r"1 of 1 rows are malformed, .*: 1 x column 'prompt' is a list, not text"),
    ],
)
def test_instructions_with_other_columns(tmp_path, row, says):
    with pytest.raises(ValueError, match=says):
        conversations(ChatSource(write(tmp_path / "a", [row]), "instructions"))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        conversations(ChatSource(str(tmp_path / "nowhere"), "messages"))


# ---------------------------------------------------------------- real data


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="NANOHF_TEST_DATA is not set")
@pytest.mark.parametrize(
    ("name", "converter", "config", "split"),
    [
        ("mmlu", "mmlu", "all", "test"),
        ("ai2_arc", "arc", "ARC-Easy", "train"),
        ("ai2_arc", "arc", "ARC-Challenge", "test"),
        ("gsm8k", "gsm8k", "main", "train"),
        ("chat", "messages", None, "train"),
    ],
)
def test_real_data_through_its_converter(tokenizer, name, converter, config, split):
    folder = str(Path(REAL) / name)
    table, faults = conversations(ChatSource(folder, converter, config=config, split=split))
    assert not faults
    assert len(table) == len(open_table(folder, split, config)) > 1000
    assert table.features == MESSAGES
    sample = table.select(range(200))
    ids = tokenizer.apply_chat_template(sample["messages"][:], tokenize=True, return_dict=False)
    assert all(i.count(tokenizer.bos_token_id) == 1 and i[-1] == tokenizer.eos_token_id for i in ids)
    assert all(messages[-1]["role"] == "assistant" for messages in sample["messages"])
    if converter in ("mmlu", "arc"):
        letters = Counter(messages[1]["content"][0]["text"] for messages in table["messages"])
        assert max(letters.values()) < 0.5 * len(table)
        assert set(letters) <= set("ABCDE")


def test_messages_as_json_text_are_read(tmp_path):
    folder = write(tmp_path / "a", [{"messages": json.dumps(TALK)}, {"messages": TALK}])
    table, faults = conversations(ChatSource(folder))
    assert not faults
    assert table[0] == table[1] == from_messages({"messages": TALK})


@pytest.mark.parametrize(
    ("said", "roles"),
    [
        ([("human", "a"), ("gpt", "b")], ["user", "assistant"]),
        ([("system", "s"), ("user", "a"), ("chatgpt", "b")], ["system", "user", "assistant"]),
        ([("system", ""), ("human", "a"), ("model", "b"), ("human", "c"), ("bot", "d")], ["user", "assistant"] * 2),
    ],
)
def test_sharegpt(said, roles):
    """With its own names, and with OpenAI's in the same column."""
    for role, content in (("from", "value"), ("role", "content")):
        messages = from_sharegpt({"conversations": [{role: r, content: c} for r, c in said]})["messages"]
        assert [message["role"] for message in messages] == roles
        assert [m["content"] for m in messages] == [[{"type": "text", "text": c}] for _, c in said if c]


@pytest.mark.parametrize(
    ("row", "converter"),
    [
        ({"messages": TALK}, "messages"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "sharegpt"),
        ({"question": "a", "answer": "1 + 1 = 2\n#### 2"}, "gsm8k"),
        ({"question": "a", "answer": "b"}, "instructions"),
        ({"prompt": "a", "response": "b"}, "instructions"),
        ({"instruction": "a", "input": "", "output": "b"}, "instructions"),
        ({"question": "a", "choices": ["x", "y"], "answer": 1}, "mmlu"),
        ({"question": "a", "choices": {"text": ["x"], "label": ["A"]}, "answerKey": "A"}, "arc"),
    ],
)
def test_a_source_without_a_converter_gets_the_one_its_columns_suggest(tmp_path, row, converter):
    folder = write(tmp_path / "a", [row, row])
    named, found = (conversations(ChatSource(folder, name))[0] for name in (converter, None))
    assert named["messages"] == found["messages"]
    assert len(found) == 2


def test_columns_of_no_known_kind(tmp_path):
    with pytest.raises(ValueError, match=r"none is known for the columns left, right\. Set converter"):
        conversations(ChatSource(write(tmp_path / "a", [{"left": "a", "right": "b"}])))
