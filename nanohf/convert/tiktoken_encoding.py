"""Reads a pickled tiktoken.Encoding, such as nanochat's tokenizer.pkl, and runs nothing that a pickle may name."""

import pickle
from itertools import pairwise
from pathlib import Path
from typing import TypeGuard, TypeVar

import regex
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from nanohf.tokenizer.train_bpe import SPECIAL_TOKENS, wrap

PROBE_TEXT = "Tom's 3 boxes of 12 pens,\r\n  <|user_start|> 3*12 = 36.\n\tÜber 1,000 naïve 数字 🙂🙂 aaaaaaaaaaa  \n"

Key = TypeVar("Key", bytes, str)


def from_tiktoken(path: str | Path, model_max_length: int = 2048) -> PreTrainedTokenizerFast:
    """The same ids for the same text, with our chat template.

    Raises:
        ValueError: the file is anything but the pickle of a byte-level tiktoken.Encoding with our special tokens, or a
            probe text gets other ids.
    """
    pattern, ranks = _read(Path(path))

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
            return ranks  # instead of a file's

    converter = Converter(pattern=pattern, extra_special_tokens=list(SPECIAL_TOKENS))
    tokenizer = wrap(converter.converted(), model_max_length)

    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    found = backend.encode(PROBE_TEXT, add_special_tokens=False).ids
    backend.encode_special_tokens = False
    if found != byte_pair_encode(PROBE_TEXT, pattern, ranks):
        raise ValueError(f"{path}: the converted tokenizer gives other ids for a probe text.")
    return tokenizer


def byte_pair_encode(text: str, pattern: str, ranks: dict[bytes, int]) -> list[int]:
    """tiktoken's rule, slowly: a piece is one token, or neighbours join, lowest rank and then leftmost first."""
    ids = []
    for match in regex.finditer(pattern, text):
        piece = match[0].encode()
        parts = [piece] if piece in ranks else [bytes([byte]) for byte in piece]
        while joinable := [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]:
            _, i = min(joinable)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    return ids


class _Encoding:
    """Stands in for tiktoken's class: it keeps the state that the pickle gives it, and does nothing."""

    def __setstate__(self, state):
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) != ("tiktoken.core", "Encoding"):
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _Encoding


def _read(path: Path) -> tuple[str, dict[bytes, int]]:
    """The split pattern and the rank of every token, which is its id."""
    try:
        with path.open("rb") as file:
            encoding = _Unpickler(file).load()
    except Exception as error:  # a pickle can break in any way
        raise ValueError(
            f"{path} is not a pickle of a tiktoken.Encoding and nothing in it was run: {error}."
        ) from error
    state = getattr(encoding, "state", None)
    if type(encoding) is not _Encoding or not isinstance(state, dict):
        raise ValueError(f"{path} holds no tiktoken.Encoding with its own tokens.")
    pattern, ranks, special = (state.get(key) for key in ("pat_str", "mergeable_ranks", "special_tokens"))
    if not (isinstance(pattern, str) and _maps(ranks, bytes) and _maps(special, str)):
        raise ValueError(f"{path}: pat_str, mergeable_ranks or special_tokens is not what tiktoken writes.")
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise ValueError(f"{path}: {len(missing)} of the 256 bytes have no token, {missing[0]:#04x} among them.")
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{path}: the ids of its {len(ranks)} tokens are not 0 to {len(ranks) - 1}.")
    if special != {token: len(ranks) + i for i, token in enumerate(SPECIAL_TOKENS)}:
        raise ValueError(f"{path}: special tokens {special}, not {', '.join(SPECIAL_TOKENS)} from id {len(ranks)} on.")
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"{path}: pat_str is not a regular expression: {error}.") from error
    return pattern, ranks


def _maps(found: object, key_type: type[Key]) -> TypeGuard[dict[Key, int]]:
    return isinstance(found, dict) and all(type(k) is key_type and type(v) is int for k, v in found.items())
