"""Shape and parameters of the model from depth and vocab_size, its two dials, and its preset."""

from dataclasses import dataclass, fields
from itertools import count

PRESETS = ("classic", "modern")


@dataclass(frozen=True)
class Parameters:
    """Number of weights by part, each part summed over all blocks. RMSNorm has none, and nothing is tied."""

    embedding: int
    lm_head: int
    attention: int
    mlp: int
    value_embeddings: int = 0  # this and what follows: the `modern` preset only
    value_gates: int = 0
    scalars: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def scaling(self) -> int:
        """Scaling params: block matrices + lm_head, the weights that cost one multiplication per token."""
        return self.attention + self.mlp + self.value_gates + self.lm_head


def require_positive(name: str, value: float, fix: str) -> None:
    if not value > 0:
        raise ValueError(f"{name}={value:,} must be positive. {fix}")


def hidden_size(depth: int) -> int:
    """Channels of the residual stream: nanochat's aspect ratio of 64 per layer."""
    require_positive("depth", depth, "Give a whole number of layers, 1 or more: --depth 4.")
    return 64 * depth


def heads_before_rounding(depth: int) -> int:
    """nanochat's rule for a head size of about 128; at some odd depths (5, 7, ...) it does not divide."""
    return max(1, (hidden_size(depth) + 127) // 128)


def num_attention_heads(depth: int) -> int:
    """The first count from nanochat's rule upwards that gives a whole and even head size (for rotary)."""
    width = hidden_size(depth)
    return next(heads for heads in count(heads_before_rounding(depth)) if width % (2 * heads) == 0)


def parameters(depth: int, vocab_size: int, preset: str = "classic", heads: int | None = None) -> Parameters:
    """Parameters by part, counted matrix by matrix: what the model class allocates. heads: None for the rule's."""
    width = hidden_size(depth)
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r} must be one of {', '.join(PRESETS)}")
    require_positive("vocab_size", vocab_size, "Give the tokenizer's size, 1 or more: --vocab-size 4096.")
    return Parameters(
        embedding=vocab_size * width,
        lm_head=width * vocab_size,
        attention=depth * 4 * width * width,  # query, key, value, output projection
        mlp=depth * 2 * width * (4 * width),  # up to 4x the width and down again
        **(modern_parts(depth, vocab_size, heads or num_attention_heads(depth)) if preset == "modern" else {}),
    )


def modern_parts(depth: int, vocab_size: int, heads: int) -> dict[str, int]:
    """Every second layer, the last one included, has a table of values and a gate of 12 channels per head."""
    layers = (depth + 1) // 2
    return {
        "value_embeddings": layers * vocab_size * hidden_size(depth),
        "value_gates": layers * 12 * heads,
        "scalars": 2 * depth,  # of the residual and of the embedding in each layer
    }


def closed_formula(depth: int, vocab_size: int) -> int:
    """2·V·C + 12·depth·C²: the total of `classic` in one formula, the check on `parameters`."""
    width = hidden_size(depth)
    return 2 * vocab_size * width + 12 * depth * width**2
