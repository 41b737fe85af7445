"""What each of N processes owns, without processes: their parts are computed in turn and put together."""

import copy

import pytest
import torch
import torch.distributed as dist

from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim import muon
from nanohf.optim.groups import build_groups, build_optimizer
from nanohf.optim.muon import MuonAdamW
from nanohf.optim.sharding import ReplicatedShards


def pretend(monkeypatch, rank: int, world_size: int) -> None:
    for name, value in {"is_initialized": True, "get_rank": rank, "get_world_size": world_size}.items():
        monkeypatch.setattr(dist, name, lambda value=value: value)


@pytest.mark.parametrize("world_size", [2, 4, 8])
@pytest.mark.parametrize("depth", [4, 6, 12, 20])
def test_every_rank_keeps_an_even_share(monkeypatch, depth, world_size):
    with torch.device("meta"):
        model = NanoHFForCausalLM(NanoHFConfig.from_depth(depth, vocab_size=4096))
    groups = build_groups(model.named_parameters(), model.config.hidden_size)
    matrices = [p for group in groups if group["kind"] == "muon" for p in group["params"]]
    loads = []
    for rank in range(world_size):
        pretend(monkeypatch, rank, world_size)
        shards = ReplicatedShards(matrices)
        loads.append([sum(shards.mine(p, p).numel() for p in group["params"]) for group in groups])
    for group, of_ranks in zip(groups, zip(*loads, strict=True), strict=True):
        whole = sum(p.numel() for p in group["params"])
        assert sum(of_ranks) == whole
        assert max(of_ranks) <= 1.05 * whole / world_size


def test_ranks_that_own_nothing_and_those_that_do_make_one_step(monkeypatch):
    """Eight processes, two matrices and a vector of three: most of them have nothing to do, in part or at all."""
    monkeypatch.setattr(muon, "_working_dtype", lambda device: torch.float32)
    sent = []
    monkeypatch.setattr(dist, "broadcast", lambda part, src, async_op: sent.append(src) or type("W", (), {"wait": int}))
    torch.manual_seed(0)
    shapes = {"a.weight": (8, 8), "b.weight": (8, 24), "scale": (3,), "lm_head.weight": (5, 2)}
    start = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    for p in start.values():
        p.grad = torch.randn_like(p)

    def stepped() -> tuple[dict, MuonAdamW]:
        params = {name: copy.deepcopy(p) for name, p in start.items()}
        for name, p in params.items():
            p.grad = start[name].grad.clone()
        optimizer = MuonAdamW(build_groups(params.items(), 64, weight_decay=0.5, normuon=0.9), sharded=True)
        optimizer.step()
        return params, optimizer

    expected, single = stepped()
    assert not sent, "one process sends nothing"
    together = {name: torch.full(shape, torch.nan) for name, shape in shapes.items()}
    states = 0
    for rank in range(8):
        pretend(monkeypatch, rank, 8)
        params, optimizer = stepped()
        for name, p in params.items():
            mine = optimizer.mine(p, p)
            if mine.numel():
                flat = together[name].view(-1)
                at = (mine.data_ptr() - p.data_ptr()) // p.element_size()
                flat[at : at + mine.numel()] = mine.detach().reshape(-1)
        states += sum(t.numel() for s in optimizer.state.values() for k, t in s.items() if k != "step")
    for name, p in expected.items():
        torch.testing.assert_close(together[name], p.detach(), atol=1e-6, rtol=0)
    assert states == sum(t.numel() for s in single.state.values() for k, t in s.items() if k != "step")


def test_sharded_alone_is_not_sharded():
    optimizer = build_optimizer(NanoHFForCausalLM(NanoHFConfig.from_depth(1, vocab_size=64)), sharded=True)
    assert optimizer.shards is None
