"""Chat mixtures: each converter against a conversation written by hand, and how often a source is seen."""

import json
import os
from collections import Counter
from pathlib import Path

import datasets
import pytest

from nanohf.data import gsm8k, world
from nanohf.data.chat import MESSAGES, Source, from_arc, from_messages, from_mmlu, mixture
from nanohf.data.sources import examples

REAL = os.environ.get("NANOHF_TEST_DATA")
LETTERS_ONLY = "Answer with the letter only."


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path_factory):
    """Nothing is asked of the network, nothing is left in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def said(role: str, *parts: str | tuple[str, str]) -> dict:
    content = [("text", part) if isinstance(part, str) else part for part in parts]
    return {"role": role, "content": [{"type": kind, "text": text} for kind, text in content]}


def conversations(*names: str) -> list[dict]:
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


@pytest.mark.parametrize(("labels", "key"), [("ABC", "C"), ("123", "3")])
def test_arc(labels, key):
    row = {"question": "Q?", "choices": {"text": ["x", "y", "z"], "label": list(labels)}, "answerKey": key}
    question = f"Q?\nA. x\nB. y\nC. z\n{LETTERS_ONLY}"
    assert from_arc(row) == {"messages": [said("user", question), said("assistant", "C")]}


def test_gsm8k(tmp_path):
    row = {"question": "How many?", "answer": "It is 2+3=<<2+3=5>>5.\n#### 5"}
    table, _ = mixture([Source(write(tmp_path / "a", [row]), "gsm8k")])
    reply = said("assistant", "It is 2+3=", ("python", "2+3"), ("python_output", "5"), "5.\n#### 5")
    assert table.to_list() == [{"messages": [said("user", "How many?"), reply]}]


# ---------------------------------------------------------------- mixtures


def test_all_sources_come_in_one_form(tmp_path):
    mmlu = {"question": "?", "choices": ["a", "b"], "answer": 0, "subject": "x"}
    arc = {"question": "?", "choices": {"text": ["a"], "label": ["1"]}, "answerKey": "1", "id": "7"}
    table, counts = mixture(
        [
            Source(write(tmp_path / "chat", conversations("a", "b")), "messages"),
            Source(write(tmp_path / "mmlu", [mmlu]), "mmlu"),
            Source(write(tmp_path / "arc", [arc] * 2, "test"), "arc", split="test"),
            Source("builtin", "gsm8k", config="problems", rows=3),
            Source("builtin", "messages", config="conversations", rows=4, split="test"),
        ]
    )
    assert table.features == MESSAGES
    assert [n for _, n in counts] == [2, 1, 2, 3, 4]
    assert len(table) == 12
    assert counts[-1][0] == "builtin conversations test"
    assert all(part["text"] is not None for row in table for m in row["messages"] for part in m["content"])


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1.0, {"a": 1, "b": 1, "c": 1, "d": 1}),
        (0.5, {"a": 1, "b": 1}),
        (2.5, {"a": 3, "b": 3, "c": 2, "d": 2}),
        (3, {"a": 3, "b": 3, "c": 3, "d": 3}),
        (0.25, {"a": 1}),
    ],
)
def test_epochs(tmp_path, epochs, expected):
    table, [(_, count)] = mixture([Source(write(tmp_path / "a", conversations(*"abcd")), "messages", epochs=epochs)])
    assert seen(table) == expected
    assert count == len(table)


def test_rows_come_before_epochs(tmp_path):
    folder = write(tmp_path / "a", conversations(*"abcd"))
    table, _ = mixture([Source(folder, "messages", rows=2, epochs=2), Source(folder, "messages", rows=99)])
    assert seen(table) == {"a": 3, "b": 3, "c": 1, "d": 1}


def test_a_builtin_source_is_the_toy_world():
    table, _ = mixture([Source("builtin", "gsm8k", config="problems", rows=50)])
    expected = [gsm8k.conversation(row) for row in world.rows("problems", "train", 50)]
    assert sorted(map(str, table.to_list())) == sorted(map(str, expected))


def test_the_seed_is_the_order():
    sources = [Source("builtin", "messages", config="conversations", rows=60)]
    first, again, other = (mixture(sources, seed)[0].to_list() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(map(str, first)) == sorted(map(str, other))


def test_sources_are_mixed(tmp_path):
    folders = [write(tmp_path / name, conversations(*[name] * 100)) for name in "ab"]
    table, _ = mixture([Source(folder, "messages") for folder in folders])
    firsts = Counter(messages[0]["content"][0]["text"] for messages in table[:100]["messages"])
    assert min(firsts["a"], firsts["b"]) > 25


# ---------------------------------------------------------------- mistakes


def test_unknown_converter():
    with pytest.raises(ValueError, match="converter='smoltalk' must be one of messages, gsm8k, mmlu, arc"):
        Source("builtin", "smoltalk")


@pytest.mark.parametrize("epochs", [0, -1.0])
def test_no_epochs(epochs):
    with pytest.raises(ValueError, match="must be above 0"):
        Source("builtin", "messages", epochs=epochs)


@pytest.mark.parametrize("converter", ["gsm8k", "mmlu", "arc"])
def test_a_converter_for_other_columns(tmp_path, converter):
    folder = write(tmp_path / "a", conversations("a"))
    with pytest.raises(ValueError, match=r"question.*messages"):
        mixture([Source(folder, converter)])


def test_messages_without_messages():
    with pytest.raises(
        ValueError, match="has no 'messages' for converter='messages'; its columns are question, answer"
    ):
        mixture([Source("builtin", "messages", config="problems", rows=2)])


def test_a_share_that_rounds_to_nothing(tmp_path):
    with pytest.raises(ValueError, match="gives no conversation"):
        mixture([Source(write(tmp_path / "a", conversations("a", "b")), "messages", epochs=0.2)])


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="is no folder and no Hub id"):
        mixture([Source(str(tmp_path / "nowhere"), "messages")])


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
    table, [(_, count)] = mixture([Source(folder, converter, config=config, split=split)])
    assert count == len(table) == len(examples(folder, split, config)) > 1000
    assert table.features == MESSAGES
    sample = table.select(range(200))
    ids = tokenizer.apply_chat_template(sample["messages"][:], tokenize=True, return_dict=False)
    assert all(i.count(tokenizer.bos_token_id) == 1 and i[-1] == tokenizer.eos_token_id for i in ids)
    assert all(messages[-1]["role"] == "assistant" for messages in sample["messages"])
    if converter in ("mmlu", "arc"):
        letters = Counter(messages[1]["content"][0]["text"] for messages in table["messages"])
        assert max(letters.values()) < 0.5 * len(table)
        assert set(letters) <= set("ABCDE")
