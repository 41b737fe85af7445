"""Mixtures: how often each source is seen, what is left out and cut, and documents in pretraining's form."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanohf.data import toy_world as world
from nanohf.data.chat_source import ChatSource
from nanohf.data.mixture import mixture

pytestmark = pytest.mark.usefixtures("offline")


def settings(**other) -> SimpleNamespace:
    """The part of SFTConfig that a mixture heeds."""
    return SimpleNamespace(
        **{"seed": 0, "max_length": 256, "packing": True, "packing_strategy": "bfd", "dataset_num_proc": None}
        | {"assistant_only_loss": True}
        | other
    )


def exchanges(*names: str) -> list[dict]:
    return [{"messages": [{"role": "user", "content": n}, {"role": "assistant", "content": n + "!"}]} for n in names]


def write(folder: Path, rows: list[dict]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def asked(tokenizer, rows) -> list[str]:
    """Of each exchange what the user said."""
    return [tokenizer.decode(ids).split("<|user_start|>")[1].split("<|user_end|>")[0] for ids in rows["input_ids"]]


def texts(rows, tokenizer) -> list[str]:
    return [tokenizer.decode(ids) for ids in rows["input_ids"]]


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
def test_epochs(tokenizer, tmp_path, epochs, expected):
    source = ChatSource(write(tmp_path / "a", exchanges(*"abcd")), "messages", epochs=epochs)
    rows, [given] = mixture(tokenizer, [source], settings())
    assert Counter(asked(tokenizer, rows)) == expected
    assert given.rows == len(rows)


def test_rows_come_before_epochs(tokenizer, tmp_path):
    folder = write(tmp_path / "a", exchanges(*"abcd"))
    sources = [ChatSource(folder, "messages", rows=2, epochs=2), ChatSource(folder, "messages", rows=99)]
    assert Counter(asked(tokenizer, mixture(tokenizer, sources, settings())[0])) == {"a": 3, "b": 3, "c": 1, "d": 1}


@pytest.mark.slow
def test_the_seed_is_the_order(tokenizer):
    sources = [
        ChatSource("builtin", "messages", config="conversations", rows=60),
        ChatSource("builtin", "document", share=0.3),
    ]
    first, again, other = (mixture(tokenizer, sources, settings(seed=seed))[0].to_list() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(map(str, first)) == sorted(map(str, other))


def test_sources_are_mixed(tokenizer, tmp_path):
    folders = [write(tmp_path / name, exchanges(*[name] * 100)) for name in "ab"]
    rows, _ = mixture(tokenizer, [ChatSource(folder, "messages") for folder in folders], settings())
    firsts = Counter(asked(tokenizer, rows)[:100])
    assert min(firsts["a"], firsts["b"]) > 25


def test_rows_left_out_are_counted_and_not_among_the_repeats(tokenizer, tmp_path):
    good, bad = exchanges(*"abc"), {"messages": [{"role": "user", "content": "x"}]}
    source = ChatSource(write(tmp_path / "a", [good[0], bad, *good[1:]]), "messages", epochs=2)
    rows, [given] = mixture(tokenizer, [source], settings())
    assert Counter(asked(tokenizer, rows)) == {"a": 2, "b": 2, "c": 2}
    assert (given.rows, given.malformed, given.untrained) == (6, 1, 0)
    assert given.reason.startswith("1 x the last message is the user's")
    assert given.reason.endswith("(first: row 1)")


def test_a_source_of_which_nothing_is_left(tokenizer, tmp_path):
    folder = write(tmp_path / "a", exchanges("a", "b"))
    with pytest.raises(ValueError, match="gives no row"):
        mixture(tokenizer, [ChatSource(folder, "messages", epochs=0.2)], settings())
    with pytest.raises(ValueError, match="gives no row"):
        mixture(tokenizer, [ChatSource(folder, "messages")], settings(max_length=3))


def test_what_max_length_cuts_is_counted(tokenizer, tmp_path):
    """The long answer loses its end; where not even its beginning is within reach, the row is left out."""
    long = "plum " * 40
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": long}]},
        {"messages": [{"role": "user", "content": long}, {"role": "assistant", "content": "a"}]},
        *exchanges("a"),
    ]
    source = ChatSource(write(tmp_path / "a", rows), "messages")
    table, [given] = mixture(tokenizer, [source], settings(max_length=20))
    short = tokenizer.apply_chat_template(exchanges("a")[0]["messages"], tokenize=True, return_dict=False)
    assert sorted(map(len, table["input_ids"])) == [len(short), 20]
    assert (given.rows, given.cut, given.untrained, given.tokens) == (2, 1, 1, 20 + len(short))
    assert given.trained == sum(label != -100 for labels in table["labels"] for label in labels)
    table, [given] = mixture(tokenizer, [source], settings(max_length=20, packing_strategy="bfd_split"))
    assert (given.rows, given.cut) == (3, 0)


def test_without_assistant_only_loss_every_token_is_trained(tokenizer, tmp_path):
    source = ChatSource(write(tmp_path / "a", exchanges("a")), "messages")
    rows, _ = mixture(tokenizer, [source], settings(assistant_only_loss=False))
    assert rows["labels"][0] == rows["input_ids"][0]


def test_documents_have_pretrainings_form_and_are_trained_whole(tokenizer):
    rows, [given] = mixture(tokenizer, [ChatSource("builtin", "document", rows=50)], settings(max_length=2048))
    expected = ["<|bos|>" + row["text"] for row in world.rows("documents", "train", 50)]
    assert sorted(texts(rows, tokenizer)) == sorted(expected)
    assert rows["labels"][:] == rows["input_ids"][:]
    assert (given.rows, given.tokens, given.trained) == (50, sum(map(len, rows["input_ids"])), given.tokens - 50)
    assert given.name == "builtin documents train"


def test_a_long_document_goes_on_in_the_next_row(tokenizer, tmp_path):
    text = " ".join(f"plum {i}" for i in range(60))
    (tmp_path / "train.jsonl").write_text(json.dumps({"story": text}) + "\n")
    (tmp_path / "validation.jsonl").write_text(json.dumps({"story": "one two"}) + "\n")
    source = ChatSource(str(tmp_path), "document", columns={"text": "story"}, rows=1)
    rows, [given] = mixture(tokenizer, [source], settings(max_length=32, seed=3))
    pieces = rows["input_ids"][:]
    assert all(piece[0] == tokenizer.bos_token_id for piece in pieces)
    assert sorted(map(len, pieces))[1:] == [32] * (len(pieces) - 1)
    assert given.cut == len(pieces) - 1 > 1
    remaining = text
    for piece in sorted((tokenizer.decode(piece[1:]) for piece in pieces), key=text.index):
        assert remaining.startswith(piece)
        remaining = remaining.removeprefix(piece)
    assert remaining == ""
    [held_out], _ = mixture(tokenizer, [ChatSource(str(tmp_path), "document", split="validation", columns={"text": "story"}, rows=9)], settings())  # fmt: skip # noqa: E501
    assert tokenizer.decode(held_out["input_ids"]) == "<|bos|>one two"


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_of_documents_is_of_all_tokens(tokenizer, share):
    conversations = ChatSource("builtin", "messages", config="conversations", rows=200)
    for sources in ([ChatSource("builtin", "document", share=share), conversations],):
        _, given = mixture(tokenizer, sources, settings())
        assert given[0].name == "builtin documents train"
        assert given[0].tokens / sum(g.tokens for g in given) == pytest.approx(share, abs=0.02)


def test_two_shares_and_a_text_that_is_too_short_for_its_own(tokenizer, tmp_path):
    """It begins again, as in pretraining."""
    rows = [{"text": f"Tale {i}: a plum fell."} for i in range(200)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [
        ChatSource("builtin", "messages", config="conversations", rows=300),
        ChatSource("builtin", "document", share=0.25),
        ChatSource(str(tmp_path), "document", share=0.25),
    ]
    table, given = mixture(tokenizer, sources, settings())
    total = sum(g.tokens for g in given)
    assert [g.tokens / total for g in given] == pytest.approx([0.5, 0.25, 0.25], abs=0.02)
    tales = Counter(text for text in texts(table, tokenizer) if "Tale" in text)
    assert 190 < len(tales) < 200  # the others are its validation text
    assert max(tales.values()) - min(tales.values()) == 1 < max(tales.values())
