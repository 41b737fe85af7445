"""Several processes, one optimizer: who computes which part of the update, and how the others get it.

Under DDP every process holds all parameters and gradients. Each updates its part of the parameters, for which alone it
keeps optimizer state, and sends it to the others: 4 bytes per parameter and step, beside the 8 of DDP's all-reduce.
Under FSDP2 parameters, gradients and state are DTensors, split by rows. What works element by element works on the
rows; matrices meet whole on one process each to be orthogonalised, and go back: two all-to-alls of 2 bytes per
parameter and step (gloo has none and gathers everything instead). Either way each of N processes does 1/N of the
products.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Placement, Shard


class ReplicatedShards:
    """For DDP: matrices go whole to the process that has least so far, everything else is cut into N even pieces.

    With few parameters, a process may own nothing. All processes give matrices and other parameters in the same order.
    """

    def __init__(self, matrices: list[torch.Tensor]):
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.owner = {}
        load = [0] * self.world_size
        for p in sorted(matrices, key=torch.numel, reverse=True):
            self.owner[p] = load.index(min(load))
            load[self.owner[p]] += p.numel()

    def parts(self, p: torch.Tensor, whole: torch.Tensor) -> list[torch.Tensor]:
        """Views of p, its gradient or its state, one per rank; those of a matrix are all or nothing."""
        if p not in self.owner:
            return list(whole.view(-1).tensor_split(self.world_size))
        return [whole if rank == self.owner[p] else whole.new_empty(0) for rank in range(self.world_size)]

    def mine(self, p: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        return self.parts(p, whole)[self.rank]

    def share(self, wholes: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Fills every (p, whole) with the parts of all ranks. All ranks call it alike."""
        sent = [
            dist.broadcast(part, src=rank, async_op=True)
            for p, whole in wholes
            for rank, part in enumerate(self.parts(p, whole))
            if part.numel()
        ]
        for work in sent:
            work.wait()

    def collect(self, p: torch.Tensor, like: torch.Tensor, mine: torch.Tensor) -> torch.Tensor | None:
        """Of all ranks' parts, on rank 0, one tensor in the shape of `like`; on the others None. All ranks call it."""
        if self.rank:
            if mine.numel():
                dist.send(mine.contiguous(), dst=0)
            return None
        whole = torch.empty_like(like, memory_format=torch.contiguous_format)
        for rank, part in enumerate(self.parts(p, whole)):
            if rank == 0:
                part.copy_(mine)
            elif part.numel():
                dist.recv(part, src=rank)
        return whole


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The rows that lie on this process."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def on_whole_matrices(function: Callable, stack: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """function(stack), where the stack's matrices may be spread over processes as the DTensor `like` is.

    stack: (matrices, rows on this process, cols), and so is the result.
    """
    if not isinstance(like, DTensor):
        return function(stack)
    rows = [Shard(1) if place.is_shard() else place for place in like.placements]
    matrices = [Shard(0) if place.is_shard() else place for place in like.placements]
    shape = torch.Size((len(stack), *like.shape))
    stride = (shape[1] * shape[2], shape[2], 1)

    def moved(part: torch.Tensor, before: list[Placement], after: list[Placement]) -> torch.Tensor:
        whole = DTensor.from_local(part, like.device_mesh, before, shape=shape, stride=stride)
        return whole.redistribute(placements=after).to_local()

    return moved(function(moved(stack, rows, matrices)).contiguous(), matrices, rows)
