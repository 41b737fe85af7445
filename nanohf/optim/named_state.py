"""An optimizer's state by parameter name: what one stage leaves, and what another, with other groups, starts from.

Moments and step counts only; learning rates and everything else in the groups belong to the new stage.
"""

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from nanohf.optim.muon import MuonAdamW, state_like


def named_state(optimizer: MuonAdamW, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The whole state on the CPU, as {"PARAMETER.KIND": tensor}: lm_head.weight.exp_avg, a scalar for .step.

    Where the state is split between processes, all of them must call it, and rank 0 alone gets it.
    """
    names = {p: name for name, p in model.named_parameters()}
    params = [p for group in optimizer.param_groups for p in group["params"]]
    state, named = optimizer.state_dict()["state"], {}
    for i, kept in state.items():
        for kind, tensor in kept.items():
            collected = whole(tensor)
            if not (isinstance(tensor, DTensor) and dist.get_rank()):
                named[f"{names[params[i]]}.{kind}"] = collected
    return named


def whole(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return tensor.detach().cpu().contiguous()


def load_named_state(optimizer: MuonAdamW, model: torch.nn.Module, named: dict[str, torch.Tensor]) -> None:
    """The reverse. What the optimizer's groups do not keep (such as NorMuon's second moment) is left out.

    Raises:
        ValueError: something that they keep is missing, or has another shape.
    """
    names = {p: name for name, p in model.named_parameters()}
    packed = optimizer.state_dict()
    errors = []
    for group, saved in zip(optimizer.param_groups, packed["param_groups"], strict=True):
        for p, i in zip(group["params"], saved["params"], strict=True):
            shapes = {kind: like.shape for kind, like in state_like(p, group).items()}
            shapes |= {"step": torch.Size()} if group["kind"] == "adamw" else {}
            packed["state"][i] = {kind: named.get(f"{names[p]}.{kind}") for kind in shapes}
            for kind, t in packed["state"][i].items():
                if t is None or t.shape != shapes[kind]:
                    has = "missing" if t is None else f"{list(t.shape)}"
                    errors.append(f"{names[p]}.{kind} is {has} and should be {list(shapes[kind])}")
    if errors:
        more = f", and {len(errors) - 1} more like it" if errors[1:] else ""
        raise ValueError(errors[0] + more)
    optimizer.load_state_dict(packed)
