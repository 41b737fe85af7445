"""Carries a checkpoint of nanochat itself (model_000650.pt, meta_000650.json) into a nanohf model folder.

    nanohf convert ~/.cache/nanochat/chatsft_checkpoints/d20 runs/d20/nanochat

nanochat's architecture of 2025-11 is nanohf's classic preset, and that of 2026-07, without smear, our config can say
too; so weights are carried bit by bit, and all else is refused by name. The result is accepted if its logits are those
of `nanochat_logits`, nanochat's forward in plain torch.
"""

import json
import math
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from nanohf.convert.nanochat_model import require_same_logits, require_same_tokens, require_same_weights, written
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.model.configuration_nanohf import FULL, SLIDING

# nanochat's names -> ours; N is a number.
WEIGHTS = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.h.N.attn.c_q.weight": "model.layers.N.self_attn.q_proj.weight",
    "transformer.h.N.attn.c_k.weight": "model.layers.N.self_attn.k_proj.weight",
    "transformer.h.N.attn.c_v.weight": "model.layers.N.self_attn.v_proj.weight",
    "transformer.h.N.attn.c_proj.weight": "model.layers.N.self_attn.o_proj.weight",
    "transformer.h.N.mlp.c_fc.weight": "model.layers.N.mlp.fc1.weight",
    "transformer.h.N.mlp.c_proj.weight": "model.layers.N.mlp.fc2.weight",
    "lm_head.weight": "lm_head.weight",
}
FIELDS = {
    "sequence_len": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_embd": "hidden_size",
}
# What 2026-07 has besides; its model_config has window_pattern.
LATER_WEIGHTS = {
    "value_embeds.N.weight": "model.layers.N.self_attn.value_embedding.weight",
    "transformer.h.N.attn.ve_gate.weight": "model.layers.N.self_attn.value_gate.weight",
    "resid_lambdas": "model.layers.N.residual_scale",  # there one vector, here a scalar in each layer
    "x0_lambdas": "model.layers.N.input_scale",
    "backout_lambda": "model.backout_scale",
}
SMEAR = {"smear_gate.weight", "smear_lambda"}
LATER = {*LATER_WEIGHTS, *SMEAR}
# nanochat pads these to a multiple of 64 rows and crops the logits: rows from vocab_size on mean nothing.
PADDED = ("transformer.wte.weight", "value_embeds.N.weight", "lm_head.weight")


def from_checkpoint(source_dir: str | Path, target_dir: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes the last checkpoint of `source_dir` with its tokenizer as a nanohf model.

    Where nanochat's embedding is bf16 and the rest is fp32, all becomes fp32, which changes no value.

    Raises:
        ValueError: the folder has no complete checkpoint or one with what nanohf has not, the tokenizer is another
            model's, the target exists, or the two do not agree.
    """
    with written(Path(target_dir)) as partial:
        fields, weights = _load(Path(source_dir))
        if len(tokenizer) != fields["vocab_size"]:
            raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, the model {fields['vocab_size']}.")
        config = NanoHFConfig(
            **{ours: fields[theirs] for theirs, ours in FIELDS.items()},
            **(_later_fields(fields) if "window_pattern" in fields else {}),
            rms_norm_eps=torch.finfo(torch.float32).eps,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        dtype = reduce(torch.promote_types, (weight.dtype for weight in weights.values()))
        model = NanoHFForCausalLM._from_config(config, dtype=dtype)
        try:
            renamed = {ours: part.to(dtype) for item in weights.items() for ours, part in _renamed(*item)}
            model.load_state_dict(renamed)
        except RuntimeError as error:
            raise ValueError(f"the weights in {source_dir} are not those of its model_config: {error}") from error
        model.save_pretrained(partial)
        tokenizer.model_max_length = config.max_position_embeddings
        tokenizer.save_pretrained(partial)
        require_same_weights(renamed, partial)
        require_same_logits(lambda ids, use_cache: nanochat_logits(fields, weights, ids), partial)
        require_same_tokens(tokenizer, partial)


def nanochat_logits(fields: dict, weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """nanochat's forward in fp32, on its own names. (batch, seq) -> (batch, seq, vocab_size)

    That of 2026-07, without smear, where the weights have its scalars, else that of 2025-11. There, cos and sin are
    rounded to bf16; here they are not.
    """
    later = "backout_lambda" in weights
    layers, head_dim = fields["n_layer"], fields["n_embd"] // fields["n_head"]
    frequencies = 1 / (100_000 if later else 10_000) ** (torch.arange(0, head_dim, 2) / head_dim)
    positions = torch.arange(ids.shape[1])
    angles = positions[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()  # (seq, head_dim / 2)
    before = positions[:, None] - positions  # how far before the query the key lies. (seq, seq)
    visible = {"L": before >= 0}
    if later:
        visible["S"] = visible["L"] & (before <= 128 * -(-fields["sequence_len"] // 512))  # (left, 0): left + own
    pattern = fields["window_pattern"] if later else "L"

    def norm(x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:])

    def turn(x: torch.Tensor) -> torch.Tensor:
        """By -angle. x: (batch, heads, seq, head_dim)"""
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.weight"].float())

    def embedding(name: str) -> torch.Tensor:
        return F.embedding(ids, weights[f"{name}.weight"].float())

    x = x0 = norm(embedding("transformer.wte"))
    for i in range(layers):
        block = f"transformer.h.{i}"
        if later:
            x = weights["resid_lambdas"][i].float() * x + weights["x0_lambdas"][i].float() * x0
        heads = (linear(norm(x), f"{block}.attn.{name}") for name in ("c_q", "c_k", "c_v"))
        q, k, v = (y.unflatten(-1, (-1, head_dim)) for y in heads)  # (batch, seq, heads, head_dim)
        if later and i % 2 == (layers - 1) % 2:
            gate = 3 * linear(norm(x)[..., :12], f"{block}.attn.ve_gate").sigmoid()  # (batch, seq, kv heads)
            v = v + gate[..., None] * embedding(f"value_embeds.{i}").view_as(v)
        q, k = ((1.2 if later else 1.0) * norm(turn(y.transpose(1, 2))) for y in (q, k))
        mask = visible["L" if i == layers - 1 else pattern[i % len(pattern)]]
        y = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), attn_mask=mask, enable_gqa=True)
        x = x + linear(y.transpose(1, 2).flatten(2), f"{block}.attn.c_proj")
        x = x + linear(linear(norm(x), f"{block}.mlp.c_fc").relu().square(), f"{block}.mlp.c_proj")
        if i == layers // 2:
            halfway = x
    if later:
        x = x - weights["backout_lambda"].float() * halfway
    return 15 * torch.tanh(linear(norm(x), "lm_head") / 15)


def _later_fields(fields: dict) -> dict:
    """Our config's fields for what 2026-07 has besides."""
    pattern, last = fields["window_pattern"], fields["n_layer"] - 1
    return {
        "value_embeddings": True,
        "residual_scalars": True,
        "backout": True,
        "query_key_scale": 1.2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        "layer_types": [SLIDING if i < last and pattern[i % len(pattern)] == "S" else FULL for i in range(last + 1)],
        # nanochat's window is FlashAttention's (left, 0): left tokens and the own one. Our sliding_window counts both.
        "sliding_window": 128 * math.ceil(fields["sequence_len"] / 512) + 1,
    }


def _load(source: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """model_config and the weights by nanochat's names, of the last step. Raises with all that cannot be carried."""
    steps = [path.stem.removeprefix("model_") for path in source.glob("model_*.pt")]
    step = max((step for step in steps if step.isdecimal()), key=int, default=None)
    if step is None:
        raise ValueError(f"{source} has no model_NNNNNN.pt.")
    path, meta_path = source / f"model_{step}.pt", source / f"meta_{step}.json"
    try:
        fields = json.loads(meta_path.read_text(encoding="utf-8"))["model_config"]
        wrong = [name for name in FIELDS if type(fields[name]) is not int or fields[name] < 1]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{meta_path} does not tell the model's shape: {error!r}.") from error
    if wrong:
        raise ValueError(f"{meta_path}: not a positive whole number: {', '.join(wrong)}.")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        weights = {name.removeprefix("_orig_mod."): weight for name, weight in weights.items()}
        numbers = all(weight.is_floating_point() for weight in weights.values())
    except Exception as error:  # whatever else it is, torch or the lines above stumble over it
        raise ValueError(f"{path} is not a file of plain tensors, and nothing else is read from it.") from error
    if not weights or not numbers:
        raise ValueError(f"{path} is not a state dict of floating-point weights.")

    patterns = {name: _pattern(name) for name in weights}
    names = set(patterns.values())
    problems = [f"{name}={fields[name]!r}" for name in fields if name not in (*FIELDS, "window_pattern")]
    problems += sorted(names - {*WEIGHTS, *LATER})
    later = sorted(names & LATER) + ["window_pattern"] * ("window_pattern" in fields)
    missing = sorted({*LATER, "window_pattern"} - {*later})
    if later and missing:
        problems.append(
            f"{', '.join(later)} without {', '.join(missing)} (between 2025-11 and 2026-07: nothing in it tells its "
            "rotary base and its query/key scale)"
        )
    elif later and weights["smear_lambda"].any():
        problems.append("smear_lambda not 0 (mixes in the previous token's embedding: state outside the KV cache)")
    if problems:
        raise ValueError(f"cannot be carried from {path} to nanohf: {'; '.join(problems)}.")
    if later and not re.fullmatch("[SL]+", str(fields["window_pattern"])):
        raise ValueError(f"{meta_path}: window_pattern={fields['window_pattern']!r} is not made of S and L.")
    rows = fields["vocab_size"]
    return fields, {n: w[:rows] if patterns[n] in PADDED else w for n, w in weights.items() if n not in SMEAR}


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+\.", ".N.", name)


def _renamed(name: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """What it becomes here: one tensor, or one for each layer."""
    ours = (WEIGHTS | LATER_WEIGHTS)[_pattern(name)]
    if number := re.search(r"\.(\d+)\.", name):
        yield ours.replace("N", number[1]), weight
    elif "N" in ours:
        yield from ((ours.replace("N", str(i)), part) for i, part in enumerate(weight.split(1)))
    else:
        yield ours, weight
