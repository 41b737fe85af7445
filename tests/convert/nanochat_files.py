"""What nanochat leaves in its cache, written by hand: an encoding of tiktoken and weights by its names. Not a test."""

import math

import torch

from nanohf.tokenizer.train_bpe import SPECIAL_TOKENS, SPLIT

MERGES = [b"en", b" p", b"ens", b" pens", b"12", b"ox", b"box", b"boxes", "Ü".encode(), b"ber", b" 3", b"...", b"aa"]
MERGES += [b"aaaa", b"  ", b"\xf0\x9f", b"es"]
RANKS = {bytes([byte]): byte for byte in range(256)} | {merge: 256 + i for i, merge in enumerate(MERGES)}
SPECIAL = {token: len(RANKS) + i for i, token in enumerate(SPECIAL_TOKENS)}
FIELDS = {"sequence_len": 64, "vocab_size": 282, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 32}
TOUCH = "touch was_run"


class Encoding:
    """Pickles as tiktoken's does: by its name and, as state, by the arguments of its constructor."""

    def __init__(self, state):
        self.state = state

    def __getstate__(self):
        return self.state


class Call:
    """Pickles as a call that unpickling would make."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def state(**changes):
    fields = {"name": "rustbpe", "pat_str": SPLIT, "mergeable_ranks": RANKS, "special_tokens": SPECIAL}
    return Encoding(fields | changes)


def weights_of(fields, rows=None):
    """By nanochat's names, with values that come from the names alone."""
    c, rows = fields["n_embd"], rows or fields["vocab_size"]
    kv = c // fields["n_head"] * fields["n_kv_head"]
    shapes = {"transformer.wte.weight": (rows, c)}
    for i in range(fields["n_layer"]):
        attn, mlp = f"transformer.h.{i}.attn", f"transformer.h.{i}.mlp"
        shapes |= {f"{attn}.c_{n}.weight": (c if n in ("q", "proj") else kv, c) for n in ("q", "k", "v", "proj")}
        shapes |= {f"{mlp}.c_fc.weight": (4 * c, c), f"{mlp}.c_proj.weight": (c, 4 * c)}
    shapes["lm_head.weight"] = (rows, c)
    return {name: spread(name, shape) for name, shape in shapes.items()}


def spread(name, shape):
    angles = torch.arange(math.prod(shape), dtype=torch.float64) * 12.9898 + sum(map(ord, name))
    return (angles.sin() * 43758.5453).frac().view(shape).float() * 1.7 / shape[1] ** 0.5
