"""How each parameter is trained: every one falls under exactly one rule."""

from collections.abc import Iterable

import torch

from nanohf.optim.muon import MuonAdamW

SCALAR_LR = 0.005  # nanochat's of 2026-07 for the residual's scales, at any width
RULE_BY_NAME = {"embed_tokens": "embedding", "value_embedding": "value embeddings", "lm_head": "lm_head"}


def build_groups(
    named_parameters: Iterable[tuple[str, torch.Tensor]],
    hidden_size: int,
    matrix_lr: float = 0.02,
    embedding_lr: float = 0.2,
    lm_head_lr: float = 0.004,
    weight_decay: float = 0.0,
    lr_scale: float = 1.0,
    normuon: float = 0.0,
) -> list[dict]:
    """Groups for `MuonAdamW`: block matrices by Muon; embedding, head and everything else by AdamW.

    The defaults are nanochat's of 2025-11; value embeddings have half the embedding's rate, as in nanochat of 2026-07.
    AdamW's learning rates were tuned at width 768 and scale with (C/768)^−0.5; all learning rates are multiplied by
    lr_scale. Parameters that need no gradient are left out (LoRA trains few).
    """
    width = (hidden_size / 768) ** -0.5
    adamw = {"kind": "adamw", "betas": (0.8, 0.95), "eps": 1e-10, "weight_decay": 0.0}
    rules: dict[str, dict] = {
        "embedding": adamw | {"lr": embedding_lr * width},
        "value embeddings": adamw | {"lr": embedding_lr / 2 * width},
        "lm_head": adamw | {"lr": lm_head_lr * width},
        "matrices": {
            "kind": "muon",
            "momentum": 0.95,
            "nesterov": True,
            "lr": matrix_lr,
            "weight_decay": weight_decay,
            "normuon": normuon,
        },
        "scalars": adamw | {"lr": SCALAR_LR},
        "other": adamw | {"lr": lm_head_lr * width},
    }
    params: dict[str, list[torch.Tensor]] = {name: [] for name in rules}
    for name, p in named_parameters:
        if p.requires_grad:
            params[_rule(name, p)].append(p)
    return [
        rule | {"name": name, "params": params[name], "lr": rule["lr"] * lr_scale}
        for name, rule in rules.items()
        if params[name]
    ]


def _rule(name: str, p: torch.Tensor) -> str:
    for part, rule in RULE_BY_NAME.items():
        if part in name:
            return rule
    return "matrices" if p.ndim == 2 else "scalars" if p.numel() == 1 else "other"


def build_optimizer(model: torch.nn.Module, sharded: bool = False, **settings) -> MuonAdamW:
    """`MuonAdamW` for every parameter of a model that needs a gradient.

    Args:
        model: any causal language model whose config has hidden_size and whose embedding and head are called
            embed_tokens and lm_head, as in transformers.
        sharded: as in `MuonAdamW`.
        settings: those of `build_groups`: learning rates per step, at width 768 where AdamW's; weight_decay of the
            matrices; lr_scale, the factor on all rates; normuon, the beta2 of NorMuon (0: off).

    Source: nanochat's optimizer of 2025-11 (https://github.com/karpathy/nanochat).
    """
    hidden_size: int = model.config.hidden_size  # type: ignore[assignment]
    return MuonAdamW(build_groups(model.named_parameters(), hidden_size, **settings), sharded)
