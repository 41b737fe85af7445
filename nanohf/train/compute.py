"""What training a model costs, by its own matrices."""

import torch

from nanohf.scaling.flops import flops_per_token


def training_flops(model, length: int) -> int:
    """FLOPs per token of a row of `length` tokens, forward and backward: see `scaling.flops`."""
    matrices = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    return flops_per_token(matrices, model.config.num_hidden_layers, model.config.hidden_size, length)
