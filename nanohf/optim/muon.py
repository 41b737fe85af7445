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

from .sharding import ReplicatedShards, local, on_whole_matrices

# Five quintic steps towards the polar factor, each the best one for what the step before leaves
# (Polar Express, arXiv 2505.16932, Algorithm 1 with a safety factor of 1.02).
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
SQUARE = [POLAR_EXPRESS[i : i + 1] for i in range(5)]  # which steps are done at once
OBLONG = [POLAR_EXPRESS[:1], POLAR_EXPRESS[1:3], POLAR_EXPRESS[3:]]


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """The approximate polar factor U·Vᵀ of each matrix U·S·Vᵀ in a stack (n, rows, cols), in the dtype given.

    Singular values end between about 0.7 and 1.2, which is as good as 1 to the optimizer and far cheaper. A step is
    x ← P·x with P = a + b·G + c·G² and G = x·xᵀ (xᵀ·x and x·P for tall matrices). So a second step's G is P·G·P and
    both can be done at once: far fewer products where G is smaller than x. Not more than two, and not the first with
    another: bf16 loses the small eigenvalues of G, and they come back larger than 1.
    """
    rows, cols = matrices.shape[-2:]
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7)
    oblong = max(rows, cols) > 1.5 * min(rows, cols)
    for first, *second in OBLONG if oblong else SQUARE:
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


def even_out(update: torch.Tensor, power: torch.Tensor, beta2: float) -> torch.Tensor:
    """Divides each row of tall matrices, each column of wide ones, by its running root mean square (arXiv 2510.05491).

    update: (n, rows, cols). power: the running mean square (n, rows, 1) or (n, 1, cols), changed in place. The norm of
    the whole matrix stays.
    """
    now = update.float().square().mean(-1 if power.shape[-1] == 1 else -2, keepdim=True)
    power.lerp_(now, 1 - beta2)
    scale = power.clamp(min=1e-10).rsqrt()
    grown = (now * scale.square()).sum((-2, -1), keepdim=True) / now.sum((-2, -1), keepdim=True).clamp(min=1e-20)
    return update * (scale / grown.clamp(min=1e-20).sqrt())


class MuonAdamW(torch.optim.Optimizer):
    """Groups carry `kind`: "muon" (matrices; momentum, nesterov) or "adamw" (betas, eps). See `groups.build_groups`.

    Every group has lr and weight_decay (decoupled: p ← p·(1 − lr·weight_decay)). A Muon update is scaled by
    √max(1, rows/cols), so that lr means the same for tall and wide matrices. Muon groups may have normuon, the beta2 of
    `even_out` (0: off), and cautious: decay only where update and parameter agree in sign (arXiv 2510.12402).

    sharded: split work and state between the processes of the default group, where there is one. state_dict is then to
    be called by all of them, gives each the whole state (on the CPU), and goes with any number of processes. DTensors
    (FSDP2) are split already; there sharded changes nothing.
    """

    def __init__(self, groups: list[dict], sharded: bool = False):
        for group in groups:
            if group.get("kind") not in ("muon", "adamw"):
                raise ValueError(f"group kind {group.get('kind')!r} must be 'muon' or 'adamw'")
            if group["kind"] == "muon" and any(p.ndim != 2 for p in group["params"]):
                raise ValueError("a muon group holds matrices only; put other parameters into an adamw group")
        # fused: load_state_dict then keeps AdamW's step counts on the parameters' device, where its kernel reads them
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "normuon": 0.0, "cautious": False, "fused": True})
        self.sharded = sharded and dist.is_initialized() and dist.get_world_size() > 1

    @cached_property
    def shards(self) -> ReplicatedShards | None:
        """Made when there is state first: FSDP2 replaces the parameters of an optimizer that exists already."""
        params = [p for group in self.param_groups for p in group["params"]]
        if not self.sharded or any(isinstance(p, DTensor) for p in params):
            return None
        return ReplicatedShards([p for g in self.param_groups if g["kind"] == "muon" for p in g["params"]])

    def mine(self, p: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """This process's part of something of p's."""
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
                    self.state[p][name] = torch.zeros_like(self.mine(p, whole))
            if self.state[p]["momentum"].numel():
                stacks[p.shape, p.device, p.dtype].append(p)
        for (shape, device, dtype), stack in stacks.items():
            weights = [local(p) for p in stack]
            update = weights[0].new_empty(len(stack), *weights[0].shape, dtype=_working_dtype(device.type))
            for p, u in zip(stack, update, strict=True):  # one matrix after the other, while it is in the cache
                grad, momentum = local(p.grad), local(self.state[p]["momentum"])
                momentum.lerp_(grad, 1 - group["momentum"])
                u.copy_(grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum)
            update = on_whole_matrices(orthogonalize, update, stack[0])
            if group["normuon"]:
                powers = torch.stack([self.state[p]["power"] for p in stack])
                update = even_out(update, powers, group["normuon"])
                torch._foreach_copy_([self.state[p]["power"] for p in stack], list(powers))
            scale = max(1, shape[0] / shape[1]) ** 0.5
            for w, u in zip(weights, update.unbind(), strict=True):
                u = u.to(dtype)
                if decay := group["lr"] * group["weight_decay"]:
                    w.addcmul_(w, (w * u >= 0).to(dtype), value=-decay) if group["cautious"] else w.mul_(1 - decay)
                w.add_(u, alpha=-group["lr"] * scale)

    def _adamw(self, group: dict, params: list[torch.Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), device=p.device)
                for name, whole in state_like(p, group).items():
                    self.state[p][name] = torch.zeros_like(self.mine(p, whole))
        state = [self.state[p] for p in params]
        adamw(
            [local(self.mine(p, p)) for p in params],
            [local(self.mine(p, p.grad)) for p in params],
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
        split = self.state and self.shards
        return packed | {"state": self._each_state(packed, self._gather)} if split else packed

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

    def _gather(self, p: torch.Tensor, like: torch.Tensor, mine: torch.Tensor) -> torch.Tensor:
        whole = torch.empty_like(like, memory_format=torch.contiguous_format)
        self.mine(p, whole).copy_(mine)
        self.shards.share([(p, whole)])
        return whole.cpu()


def state_like(p: torch.Tensor, group: dict) -> dict[str, torch.Tensor]:
    """What is kept of a parameter beside counts, and a tensor of each one's shape."""
    if group["kind"] == "adamw":
        return {"exp_avg": p, "exp_avg_sq": p}
    if group["normuon"] and isinstance(p, DTensor):
        raise ValueError("normuon wants whole matrices, FSDP2 splits them; set it to 0 or use DDP")
    power = p[:, :1] if p.shape[0] >= p.shape[1] else p[:1]
    return {"momentum": p} | ({"power": power} if group["normuon"] else {})
