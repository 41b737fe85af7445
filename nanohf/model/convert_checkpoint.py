"""Carries a checkpoint of nanochat itself (model_000650.pt, meta_000650.json) into a nanohf model folder.

    nanohf convert ~/.cache/nanochat/chatsft_checkpoints/d20 runs/d20/nanochat

nanochat's architecture of 2025-11 is nanohf's own, so weights are carried bit by bit; what later ones added is refused
by name. The result is accepted if its logits are those of `nanochat_logits`, nanochat's forward in plain torch.
"""

import json
import re
from functools import reduce
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from . import NanoHFConfig, NanoHFForCausalLM
from .convert import require_same_logits, require_same_tokens, require_same_weights, written

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
NEVER = {
    "smear_gate.weight": "mixes in the previous token's embedding: state outside the KV cache",
    "smear_lambda": "mixes in the previous token's embedding: state outside the KV cache",
}
# nanochat pads these to a multiple of 64 rows and crops the logits: rows from vocab_size on mean nothing.
PADDED = ("transformer.wte.weight", "lm_head.weight")


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
            rms_norm_eps=torch.finfo(torch.float32).eps,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        dtype = reduce(torch.promote_types, (weight.dtype for weight in weights.values()))
        renamed = {_rename(name): weight.to(dtype) for name, weight in weights.items()}
        model = NanoHFForCausalLM._from_config(config, dtype=dtype)
        try:
            model.load_state_dict(renamed)
        except RuntimeError as error:
            raise ValueError(f"the weights in {source_dir} are not those of its model_config: {error}") from error
        model.save_pretrained(partial)
        tokenizer.model_max_length = config.max_position_embeddings
        tokenizer.save_pretrained(partial)
        require_same_weights(renamed, partial)
        require_same_logits(lambda ids, use_cache: nanochat_logits(fields, weights, ids), partial)
        require_same_tokens(tokenizer, partial)


def nanochat_logits(fields: dict[str, int], weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """nanochat's forward of 2025-11 in fp32, on its own names. (batch, seq) -> (batch, seq, vocab_size)

    One difference: there, cos and sin are rounded to bf16.
    """
    head_dim = fields["n_embd"] // fields["n_head"]
    frequencies = 1 / 10_000 ** (torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.arange(ids.shape[1])[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()  # (seq, head_dim / 2)

    def norm(x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:])

    def turn(x: torch.Tensor) -> torch.Tensor:
        """By -angle. x: (batch, heads, seq, head_dim)"""
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.weight"].float())

    x = norm(F.embedding(ids, weights["transformer.wte.weight"].float()))
    for block in (f"transformer.h.{i}" for i in range(fields["n_layer"])):
        heads = (linear(norm(x), f"{block}.attn.{name}") for name in ("c_q", "c_k", "c_v"))
        q, k, v = (y.unflatten(-1, (-1, head_dim)).transpose(1, 2) for y in heads)
        y = F.scaled_dot_product_attention(norm(turn(q)), norm(turn(k)), v, is_causal=True, enable_gqa=True)
        x = x + linear(y.transpose(1, 2).flatten(2), f"{block}.attn.c_proj")
        x = x + linear(linear(norm(x), f"{block}.mlp.c_fc").relu().square(), f"{block}.mlp.c_proj")
    return 15 * torch.tanh(linear(norm(x), "lm_head") / 15)


def _load(source: Path) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
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

    problems = [f"{name}={fields[name]!r}" for name in fields if name not in FIELDS]
    patterns = dict.fromkeys(_pattern(name) for name in weights)
    problems += [f"{p} ({NEVER[p]})" if p in NEVER else p for p in patterns if p not in WEIGHTS]
    if problems:
        raise ValueError(f"cannot be carried from {path} to nanohf: {'; '.join(problems)}.")
    return fields, {n: w[: fields["vocab_size"]] if n in PADDED else w for n, w in weights.items()}


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+\.", ".N.", name)


def _rename(name: str) -> str:
    number = re.search(r"\.(\d+)\.", name)
    return WEIGHTS[_pattern(name)].replace("N", number[1] if number else "N")
