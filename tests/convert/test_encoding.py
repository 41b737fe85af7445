"""nanochat's tokenizer, a pickle of tiktoken's: the same ids, and nothing that a pickle names is run."""

import os
import pickle

import pytest
from nanochat_files import RANKS, SPECIAL, TOUCH, Call, Encoding, state

from nanohf.convert.tiktoken_encoding import from_tiktoken
from nanohf.tokenizer.train_bpe import SPLIT

TEXT = "Tom has 3 boxes of 12 pens. <|user_start|> 3*12 = 36.\n\tÜber 1,000 naïve 数字 🙂  aaaaaaa... don't"
# what tiktoken 0.14's Encoding("rustbpe", SPLIT, RANKS, SPECIAL).encode_ordinary(TEXT) gives
# fmt: off
IDS = [84, 111, 109, 32, 104, 97, 115, 32, 51, 32, 263, 32, 111, 102, 32, 260, 259, 46, 32, 60, 124, 117, 115, 101,
       114, 95, 115, 116, 97, 114, 116, 124, 62, 32, 51, 42, 260, 32, 61, 32, 51, 54, 46, 10, 9, 264, 98, 101, 114,
       32, 49, 44, 48, 48, 48, 32, 110, 97, 195, 175, 118, 101, 32, 230, 149, 176, 229, 173, 151, 32, 271, 153, 130,
       32, 32, 269, 268, 97, 267, 32, 100, 111, 110, 39, 116]
# fmt: on


def test_ids_are_tiktokens(pickled, tiktoken):
    path = pickled(state())
    tiktoken.undo()
    tokenizer = from_tiktoken(path, 128)
    backend = tokenizer.backend_tokenizer
    assert tokenizer("aaaa<|user_end|>").input_ids == [SPECIAL["<|bos|>"], 269, SPECIAL["<|user_end|>"]]
    backend.encode_special_tokens = True
    assert backend.encode(TEXT, add_special_tokens=False).ids == IDS
    assert tokenizer.decode(IDS) == TEXT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"special_tokens": {}}, "special tokens"),
        ({"special_tokens": SPECIAL | {"<|bos|>": 0}}, "special tokens"),
        ({"special_tokens": None}, "not what tiktoken writes"),
        ({"mergeable_ranks": {"a": 0}}, "not what tiktoken writes"),
        ({"mergeable_ranks": {k: v for k, v in RANKS.items() if k != b"\x80"}}, "0x80"),
        ({"mergeable_ranks": RANKS | {b"aa": 7}}, "are not 0 to"),
        ({"pat_str": "("}, "not a regular expression"),
    ],
)
def test_refuses_another_encoding(pickled, changes, reason):
    with pytest.raises(ValueError, match=reason):
        from_tiktoken(pickled(state(**changes)))


# ---------------------------------------------------------------- files from strangers

HOSTILE = {
    "os.system": Call(os.system, TOUCH),
    "builtins.eval": Call(eval, "open('was_run', 'w')"),
    "in the state": Encoding({"name": Call(os.system, TOUCH)}),
    "in the ranks": Encoding({"mergeable_ranks": {b"a": Call(exec, "open('was_run', 'w')")}}),
    "getattr(__import__('os'), 'system')(TOUCH)": (
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(Vos\ntRVsystem\ntR(V" + TOUCH.encode() + b"\ntR."
    ),
    "by way of the class that is let in": (
        pickle.PROTO + b"\x04\x8c\x0dtiktoken.core\x8c\x21Encoding.__getstate__.__globals__\x93."
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tokenizer_is_not_run(pickled, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tokenizer.pkl"
    if isinstance(HOSTILE[name], bytes):
        path.write_bytes(HOSTILE[name])
    else:
        pickled(HOSTILE[name])
    if name != "by way of the class that is let in":
        pickle.loads(path.read_bytes())  # where it may, it does what it says
        (tmp_path / "was_run").unlink()
    with pytest.raises(ValueError, match="nothing in it was run: it names"):
        from_tiktoken(path)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "nothing in it was run"),
        (pickle.dumps({"a": 1})[:-3], "nothing in it was run"),
        (b"Pnetwork\n.", "nothing in it was run"),  # a persistent id
        (pickle.dumps({"pat_str": SPLIT}), "holds no tiktoken.Encoding"),
        (b"ctiktoken.core\nEncoding\n.", "holds no tiktoken.Encoding"),  # the class, not an instance
        (b"ctiktoken.core\nEncoding\n)\x81Vcl100k_base\nb.", "with its own tokens"),  # how tiktoken writes its own
        (b"ctiktoken.core\nEncoding\n)\x81.", "with its own tokens"),
    ],
)
def test_refuses_another_pickle(tmp_path, content, reason):
    (tmp_path / "tokenizer.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        from_tiktoken(tmp_path / "tokenizer.pkl")
