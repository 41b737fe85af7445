"""One optimizer for the whole model: Muon for the block matrices, AdamW for everything else.

Muon (https://kellerjordan.github.io/posts/muon/): the momentum of a weight matrix is replaced by the nearest
semi-orthogonal matrix, so that every direction learns at the same rate. Works wherever a torch optimizer works: our
loop, accelerate, Trainer and TRL (`optimizers=(optimizer, None)`). For several processes see `sharding`.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache, cached_property

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from nanohf.optim.sharding import ReplicatedShards, local, on_whole_matrices

# Four quintic steps towards the polar factor, each the best one for what the step before leaves of singular values
# between 0.003 and 1 (Polar Express, arXiv 2505.16932, Algorithm 1 with a safety factor of 1.02).
POLAR_EXPRESS = (
    (8.089256959190564, -22.297789245260542, 15.747758400660437),
    (3.9433781324843364, -2.7846150465544968, 0.5038087073896528),
    (3.472945650518314, -2.500502056078833, 0.4789275248241308),
    (2.5523222055131343, -1.886821974397987, 0.4426195090056674),
)
ONE_BY_ONE = [POLAR_EXPRESS[i : i + 1] for i in range(4)]  # for matrices that are nearly square
IN_PAIRS = [POLAR_EXPRESS[:2], POLAR_EXPRESS[2:]]  # two steps at once, for matrices that are long and narrow


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """The approximate polar factor U·Vᵀ of each matrix U·S·Vᵀ in a stack (n, rows, cols), in the dtype given.

    Singular values of at least 0.003 of the norm end between 0.75 and 1.25, as good as 1 to the optimizer; smaller ones
    end smaller. A step is x ← P·x with P = a + b·G + c·G² and G = x·xᵀ (xᵀ·x and x·P for tall matrices). So a second
    step's G is P·G·P and both can be done at once: far fewer products where G is smaller than x. Not three: bf16 loses
    the small eigenvalues of G, and they come back larger than 1.
    """
    rows, cols = matrices.shape[-2:]
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7)
    nearly_square = max(rows, cols) <= 1.5 * min(rows, cols)
    for first, *second in ONE_BY_ONE if nearly_square else IN_PAIRS:
        gram = x.mT @ x if rows > cols else x @ x.mT
        factor = polynomial(gram, *first)
        for step in second:
            factor = polynomial(factor @ gram @ factor, *step) @ factor
        x = x @ factor if rows > cols else factor @ x
    return x


def polynomial(gram: torch.Tensor, a: float, b: float, c: float) -> torch.Tensor:
    """a + b·G + c·G² for each G of a stack."""
    result = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal(dim1=-2, dim2=-1).add_(a)
    return result


@cache
def _working_dtype(device_type: str) -> torch.dtype:
    """bf16, accurate enough here, where the hardware multiplies it: 3.5x faster on a CPU with avx512_bf16."""
    native = device_type == "cuda" or (device_type == "cpu" and torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if native else torch.float32


def normalize_rows(update: torch.Tensor, second_moment: torch.Tensor, longer: int, beta2: float) -> torch.Tensor:
    """Divides each row of an update (rows, cols) by its running root mean square (NorMuon, arXiv 2510.05491).

    second_moment: the running mean square (rows, 1), changed in place, in units of an orthogonal matrix's mean square,
    which is 1 / its longer side. It begins at 1, needs no correction, and the update keeps its size. Dead rows stay 0.
    """
    second_moment.lerp_(update.square().mean(-1, keepdim=True) * longer, 1 - beta2)
    return update * second_moment.clamp(min=1e-20).rsqrt()


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for everything else, as one `torch.optim.Optimizer`.

    Every group has a `kind`, lr and weight_decay (decoupled: p ← p·(1 − lr·weight_decay)); `groups.build_groups` makes
    them for a model. The update of a Muon matrix (rows, cols) is scaled by √max(1, rows/cols), so that lr means the
    same for tall and wide matrices. State has the parameter's shape and dtype: one tensor with Muon, two with AdamW.

    Args:
        groups: as any torch optimizer takes them. kind "muon": 2-D parameters, momentum, nesterov, and normuon, the
            beta2 of `normalize_rows` (0: off). kind "adamw": any shape, betas, eps.
        sharded: split work and state between the processes of the default group, where there is one. state_dict must
            then be called by all of them; it gives rank 0 the whole state, on the CPU, and the others none. Any number
            of processes can load it. DTensors (FSDP2) are split already; there sharded changes nothing.

    Raises:
        ValueError: an unknown kind, or a parameter in a muon group that is not a matrix.

    Sources: Muon, https://kellerjordan.github.io/posts/muon/; Polar Express, arXiv 2505.16932; NorMuon, arXiv
    2510.05491; the constants of `build_groups` are nanochat's.
    """

    def __init__(self, groups: list[dict], sharded: bool = False):
        for group in groups:
            if group.get("kind") not in ("muon", "adamw"):
                raise ValueError(f"group kind {group.get('kind')!r} must be 'muon' or 'adamw'")
            if group["kind"] == "muon" and any(p.ndim != 2 for p in group["params"]):
                raise ValueError("a muon group holds matrices only; put other parameters in an adamw group")
        # fused: load_state_dict then keeps AdamW's step counts on the parameters' device, where its kernel reads them
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "normuon": 0.0, "fused": True})
        self.sharded = sharded and dist.is_initialized() and dist.get_world_size() > 1

    @cached_property
    def shards(self) -> ReplicatedShards | None:
        """Made when there is state first: FSDP2 replaces the parameters of an optimizer that exists already."""
        params = [p for group in self.param_groups for p in group["params"]]
        if not self.sharded or any(isinstance(p, DTensor) for p in params):
            return None
        return ReplicatedShards([p for g in self.param_groups if g["kind"] == "muon" for p in g["params"]])

    def mine(self, p: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """This process's part of p, its gradient or its state."""
        return self.shards.mine(p, whole) if self.shards else whole

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        updated = []
        for group in self.param_groups:
            if params := [p for p in group["params"] if p.grad is not None]:
                (self._muon if group["kind"] == "muon" else self._adamw)(group, params)
                updated += params
        if self.shards:
            self.shards.share([(p, p.data) for p in updated])
        return loss

    def _muon(self, group: dict, params: list[torch.Tensor]) -> None:
        stacks = defaultdict(list)
        for p in params:
            if not self.state[p]:
                for name, whole in state_like(p, group).items():
                    self.state[p][name] = torch.full_like(self.mine(p, whole), 1.0 if name == "second_moment" else 0.0)
            if self.state[p]["momentum"].numel():
                stacks[p.shape, p.device, p.dtype].append(p)
        for (shape, device, dtype), stack in stacks.items():
            weights = [local(p) for p in stack]
            update = weights[0].new_empty(len(stack), *weights[0].shape, dtype=_working_dtype(device.type))
            for p, u in zip(stack, update, strict=True):  # one matrix after the other, while it is in the cache
                grad, momentum = local(gradient(p)), local(self.state[p]["momentum"])
                momentum.lerp_(grad, 1 - group["momentum"])
                u.copy_(grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum)
            update = on_whole_matrices(orthogonalize, update, stack[0])
            lr = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
            for p, w, u in zip(stack, weights, update, strict=True):
                u = u.to(dtype)
                if group["normuon"]:
                    u = normalize_rows(u, local(self.state[p]["second_moment"]), max(shape), group["normuon"])
                if group["weight_decay"]:
                    w.mul_(1 - group["lr"] * group["weight_decay"])
                w.add_(u, alpha=-lr)

    def _adamw(self, group: dict, params: list[torch.Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), device=p.device)
                for name, whole in state_like(p, group).items():
                    self.state[p][name] = torch.zeros_like(self.mine(p, whole))
        state = [self.state[p] for p in params]
        adamw(
            [local(self.mine(p, p)) for p in params],
            [local(self.mine(p, gradient(p))) for p in params],
            [local(s["exp_avg"]) for s in state],
            [local(s["exp_avg_sq"]) for s in state],
            [],
            [s["step"] for s in state],
            foreach=None,
            capturable=False,
            differentiable=False,
            fused=True,
            grad_scale=None,
            found_inf=None,
            has_complex=False,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def state_dict(self) -> dict:
        packed = super().state_dict()
        if not (self.state and self.shards):
            return packed
        state = self._each_state(packed, self._collected)
        return packed | {"state": {} if self.shards.rank else state}

    def load_state_dict(self, state_dict: dict) -> None:
        if state_dict["state"] and self.shards:
            state_dict = state_dict | {"state": self._each_state(state_dict, lambda p, _, t: self.mine(p, t).clone())}
        super().load_state_dict(state_dict)

    def _each_state(self, packed: dict, change: Callable) -> dict:
        """packed["state"], with change(p, like, tensor) in place of each tensor that is split between processes."""
        state = {}
        for group, saved in zip(self.param_groups, packed["param_groups"], strict=True):
            for p, i in zip(group["params"], saved["params"], strict=True):
                if i in packed["state"]:
                    likes = state_like(p, group)
                    state[i] = {k: change(p, likes[k], t) if k in likes else t for k, t in packed["state"][i].items()}
        return state

    def _collected(self, p: torch.Tensor, like: torch.Tensor, mine: torch.Tensor) -> torch.Tensor | None:
        assert self.shards is not None
        whole = self.shards.collect(p, like, mine)
        return None if whole is None else whole.cpu()


def gradient(p: torch.Tensor) -> torch.Tensor:
    assert p.grad is not None  # `step` passes over parameters without one
    return p.grad


def state_like(p: torch.Tensor, group: dict) -> dict[str, torch.Tensor]:
    """The state kept for a parameter, step counts apart: each tensor's name, and a tensor of its shape."""
    if group["kind"] == "adamw":
        return {"exp_avg": p, "exp_avg_sq": p}
    return {"momentum": p} | ({"second_moment": p[:, :1]} if group["normuon"] else {})
