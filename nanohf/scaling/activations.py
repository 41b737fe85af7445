"""Bytes of one micro-batch: what the backward pass needs again, and what the loss works with.

Counted from what autograd saves of the model, tensor by tensor (tests/scaling/test_activations.py counts again, at full
size without memory). C is hidden_size, H the heads, V the vocabulary; under bf16 residuals and norms stay fp32.
"""

from dataclasses import dataclass

from nanohf.scaling.parameters import Parameters, hidden_size

VALUE_EMBEDDING = {False: 6, True: 4}  # bytes per channel and token of a layer that has one, eager and compiled
SCALARS = 4  # bytes per channel and token of each layer but the first, with residual scalars
LOSS = 10  # bytes per token and entry of the vocabulary at the loss, beside what is saved: logits, fp32 copy, gradient


@dataclass(frozen=True)
class PerToken:
    """Bytes saved for each token."""

    layer_channels: (
        int  # times C, of a layer: residual, norms, q, k, v, attention, 4C before and after the MLP's square
    )
    channels: int  # times C, once: embedding and last norm
    vocabulary: int  # times V: capped logits and log-probabilities


# (bf16, compiled): as torch 2.13 saves them. Compiled, casts are made again and norms are not kept.
SAVED = {
    (False, False): PerToken(76, 12, 8),
    (False, True): PerToken(76, 8, 8),
    (True, False): PerToken(50, 10, 6),
    (True, True): PerToken(46, 2, 4),
}
HEADS, NORMS = 12, 8  # bytes per token of a layer: the attention's sums and two norms for each head; its other norms


@dataclass(frozen=True)
class MicroBatch:
    """What is computed at once on one process."""

    rows: int
    length: int
    bf16: bool
    compiled: bool
    checkpointing: bool = False  # layers are computed again, one at a time

    @property
    def tokens(self) -> int:
        return self.rows * self.length


def saved_bytes(parameters: Parameters, depth: int, vocab_size: int, heads: int, batch: MicroBatch) -> int:
    """Bytes of distinct tensors that the forward pass keeps, the fp32 parameters left out.

    parameters: of which the matrices are kept once more in bf16, and whose value embeddings tell the preset.
    """
    per, width = SAVED[batch.bf16, batch.compiled], hidden_size(depth)
    layer = per.layer_channels * width + HEADS * heads + NORMS
    with_value = (depth + 1) // 2 if parameters.value_embeddings else 0
    extra = with_value * VALUE_EMBEDDING[batch.compiled] * width
    extra += (depth - 1) * SCALARS * width if parameters.scalars else 0
    layers = depth * layer + extra
    if batch.checkpointing:  # the residual before each layer, and one layer while it is computed again
        layers = depth * 4 * width + layer
    per_token = layers + per.channels * width + per.vocabulary * vocab_size
    casts = 2 * (parameters.attention + parameters.mlp + parameters.lm_head) if batch.bf16 else 0
    angles = 2 * 4 * batch.length * width // heads
    return batch.tokens * per_token + casts + angles


def micro_batch_bytes(parameters: Parameters, depth: int, vocab_size: int, heads: int, batch: MicroBatch) -> int:
    """The most that a micro-batch holds: what is saved, and at the loss what it works with."""
    return saved_bytes(parameters, depth, vocab_size, heads, batch) + LOSS * batch.tokens * vocab_size


def cache_bytes(depth: int, sequences: int, length: int) -> int:
    """Keys and values of so many sequences in generation, fp32."""
    return 2 * 4 * depth * hidden_size(depth) * sequences * length
