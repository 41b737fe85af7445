"""The optimizer against the SVD, torch's own AdamW and a Muon of ten lines."""

import random

import pytest
import torch

from nanohf.optim import muon
from nanohf.optim.muon import MuonAdamW, orthogonalize

SHAPES = [(8, 8), (16, 64), (64, 16), (48, 40), (1, 12), (12, 1), (128, 128)]
DTYPES = [torch.float32, torch.bfloat16]


def polar(matrix: torch.Tensor) -> torch.Tensor:
    u, _, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u @ vt


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()


# ---------------------------------------------------------------- orthogonalisation


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_orthogonalize_is_near_the_polar_factor(shape, dtype, scale):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape) * scale
    found = orthogonalize(matrices.to(dtype))
    assert found.shape == matrices.shape
    assert found.dtype == dtype
    for matrix, ours in zip(matrices, found, strict=True):
        exact = polar(matrix)
        assert cosine(ours, exact) > 0.98
        values = torch.linalg.svdvals(ours.float())
        # A random square matrix has singular values so small that four steps cannot lift all of them to 1.
        bulk = values[: max(1, int(0.9 * len(values)))]
        assert bulk.min() > 0.7
        assert values.max() < 1.25


@pytest.mark.parametrize(("condition", "least"), [(1.0, 0.75), (10.0, 0.75), (100.0, 0.75), (500.0, 0.3)])
def test_orthogonalize_lifts_small_singular_values(condition, least):
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(32, 32))
    v, _ = torch.linalg.qr(torch.randn(48, 32))
    matrix = u * torch.logspace(0, -torch.tensor(condition).log10().item(), 32) @ v.T
    values = torch.linalg.svdvals(orthogonalize(matrix[None])[0])
    assert values.min() > least
    assert values.max() < 1.25


@pytest.mark.parametrize("shape", [(64, 256), (256, 64)])
@pytest.mark.parametrize("condition", [1.0, 100.0, 10_000.0])
def test_two_steps_at_once_are_two_steps(shape, condition):
    """bf16 must neither lose small singular values nor blow them up: the same in fp32, one step after the other."""
    torch.manual_seed(0)
    small, large = sorted(shape)
    u, _ = torch.linalg.qr(torch.randn(small, small))
    v, _ = torch.linalg.qr(torch.randn(large, small))
    matrix = u * torch.logspace(0, -torch.tensor(condition).log10().item(), small) @ v.T
    x = matrix / (matrix.norm() * 1.02)
    for a, b, c in muon.POLAR_EXPRESS:
        x = a * x + (b * (x @ x.T) + c * (x @ x.T) @ (x @ x.T)) @ x
    matrix, x = (matrix, x) if shape[0] < shape[1] else (matrix.T, x.T)
    torch.testing.assert_close(orthogonalize(matrix[None])[0], x, atol=2e-4, rtol=0)
    half = orthogonalize(matrix[None].bfloat16())[0].float()
    assert cosine(half, x) > 0.97
    assert torch.linalg.svdvals(half).max() < 1.25


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_stack_is_its_matrices_one_by_one(shape, dtype):
    torch.manual_seed(1)
    matrices = torch.randn(5, *shape, dtype=dtype)
    one_by_one = torch.cat([orthogonalize(m[None]) for m in matrices])
    torch.testing.assert_close(orthogonalize(matrices), one_by_one)


def test_tall_is_wide_transposed():
    torch.manual_seed(2)
    matrices = torch.randn(2, 24, 72)
    torch.testing.assert_close(orthogonalize(matrices.mT.contiguous()), orthogonalize(matrices).mT)


@pytest.mark.parametrize("dtype", DTYPES)
def test_orthogonalize_leaves_zero_and_its_input_alone(dtype):
    assert (orthogonalize(torch.zeros(2, 8, 4, dtype=dtype)) == 0).all()
    matrices = torch.randn(2, 4, 8, dtype=dtype)
    before = matrices.clone()
    orthogonalize(matrices)
    assert torch.equal(matrices, before)


# ---------------------------------------------------------------- updates


def test_normuon_normalizes_rows_and_keeps_zeros():
    """Rows that are 10 times the others come out as large as they are; a dead row stays 0, however long."""
    torch.manual_seed(0)
    update = torch.linalg.qr(torch.randn(64, 16))[0]
    update[:8] *= 10
    update[8] = 0
    second_moment = torch.ones(64, 1)
    for _ in range(2000):
        evened = muon.normalize_rows(update, second_moment, 64, 0.9)
    sizes = evened.square().mean(1)
    assert sizes[8] == 0
    torch.testing.assert_close(sizes[sizes > 0], torch.full((63,), 1 / 64))
    fresh = muon.normalize_rows(torch.full((2, 3), 5.0), torch.ones(2, 1), 3, 0.9)
    torch.testing.assert_close(fresh, torch.full((2, 3), 5 / (0.9 + 0.1 * 25 * 3) ** 0.5))


def grads_like(params: list[torch.Tensor], step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator).to(p.dtype) for p in params]


def take_steps(optimizer, params: list[torch.Tensor], steps: range) -> None:
    for step in steps:
        for p, g in zip(params, grads_like(params, step), strict=True):
            p.grad = g
        optimizer.step()
        optimizer.zero_grad()


def parameters(*shapes, seed: int = 0) -> list[torch.nn.Parameter]:
    torch.manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]


def adamw_group(params, **settings) -> dict:
    return {
        "kind": "adamw",
        "betas": (0.8, 0.95),
        "eps": 1e-10,
        "lr": 0.1,
        "weight_decay": 0.0,
        "params": params,
    } | settings


def muon_group(params, **settings) -> dict:
    return {
        "kind": "muon",
        "momentum": 0.95,
        "nesterov": True,
        "lr": 0.02,
        "weight_decay": 0.0,
        "params": params,
    } | settings


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_is_torchs(weight_decay, fused):
    shapes = [(7, 5), (11,), (64, 32), ()]
    ours, theirs = parameters(*shapes), parameters(*shapes)
    take_steps(MuonAdamW([adamw_group(ours, weight_decay=weight_decay)]), ours, range(25))
    settings = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-10, "weight_decay": weight_decay}
    take_steps(torch.optim.AdamW(theirs, fused=fused, **settings), theirs, range(25))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=0 if fused else 2e-6, rtol=0)


def reference_muon(p, state, grad, lr, beta, nesterov, weight_decay, normuon=0.0):
    """Keller Jordan's update, with the momentum as a running mean; the polar factor as the optimizer computes it."""
    state["m"] = beta * state.get("m", 0) + (1 - beta) * grad
    u = beta * state["m"] + (1 - beta) * grad if nesterov else state["m"]
    u = orthogonalize(u[None].to(muon._working_dtype("cpu")))[0].float()
    if normuon:  # arXiv 2510.05491, Algorithm 1, with what an orthogonal matrix has on average to begin with
        average = 1 / max(p.shape)
        state["v"] = normuon * state.get("v", average) + (1 - normuon) * (u * u).mean(1, keepdim=True)
        u = u / (state["v"] / average).sqrt()
    p.data *= 1 - lr * weight_decay
    p.data -= lr * max(1, p.shape[0] / p.shape[1]) ** 0.5 * u


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nesterov": False},
        {"weight_decay": 0.3},
        {"normuon": 0.9},
        {"normuon": 0.5, "weight_decay": 5.0},
    ],
    ids=str,
)
def test_muon_is_the_reference(settings, monkeypatch):
    monkeypatch.setattr(muon, "_working_dtype", lambda device: torch.float32)
    shapes = [(16, 16), (16, 48), (48, 16), (16, 16), (48, 16)]
    ours, theirs = parameters(*shapes), parameters(*shapes)
    states = [{} for _ in shapes]
    take_steps(MuonAdamW([muon_group(ours, **settings)]), ours, range(8))
    settings = {"nesterov": True, "weight_decay": 0.0} | settings
    for step in range(8):
        for p, state, g in zip(theirs, states, grads_like(theirs, step), strict=True):
            reference_muon(p, state, g, 0.02, 0.95, **settings)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_muon_in_its_working_precision_is_the_reference():
    shapes = [(16, 16), (16, 48), (48, 16), (16, 16), (48, 16)]
    ours, theirs = parameters(*shapes), parameters(*shapes)
    states = [{} for _ in shapes]
    take_steps(MuonAdamW([muon_group(ours)]), ours, range(8))
    for step in range(8):
        for p, state, g in zip(theirs, states, grads_like(theirs, step), strict=True):
            reference_muon(p, state, g, 0.02, 0.95, True, 0.0)
    for a, b in zip(ours, theirs, strict=True):
        # bf16 products may be summed in another order in a stack: 8 steps of at most 0.02 x 1.7, each to 2^-8
        torch.testing.assert_close(a, b, atol=8 * 0.02 * 1.7 * 2**-7, rtol=0)


def test_muon_goes_along_the_polar_factor():
    (p,) = parameters((24, 40))
    before, grad = p.detach().clone(), grads_like([p], 0)[0]
    take_steps(MuonAdamW([muon_group([p])]), [p], range(1))
    assert cosine(before - p.detach(), polar(grad)) > 0.98


@pytest.mark.parametrize("kind", [muon_group, adamw_group])
def test_the_order_of_parameters_does_not_matter(kind):
    shapes = [(16, 16), (16, 48), (16, 16), (48, 16), (16, 48), (16, 16)]
    order = random.Random(0).sample(range(6), 6)
    straight, shuffled = parameters(*shapes), parameters(*shapes)
    one, other = MuonAdamW([kind(straight)]), MuonAdamW([kind([shuffled[i] for i in order])])
    take_steps(one, straight, range(4))
    take_steps(other, shuffled, range(4))
    for a, b in zip(straight, shuffled, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0)
        name = "momentum" if kind is muon_group else "exp_avg"
        assert torch.equal(one.state[a][name], other.state[b][name])


def test_parameters_without_gradient_stay():
    used, unused = parameters((8, 8), (8, 8))
    before = unused.detach().clone()
    optimizer = MuonAdamW([muon_group([used, unused], weight_decay=0.5)])
    used.grad = torch.randn(8, 8)
    optimizer.step()
    assert torch.equal(unused, before)
    assert unused not in optimizer.state


def test_closure():
    (p,) = parameters((8, 8))
    optimizer = MuonAdamW([muon_group([p])])

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    before = p.square().sum().item()
    assert optimizer.step(closure).item() == pytest.approx(before)
    assert p.square().sum().item() < before


def test_wrong_groups():
    (matrix, vector) = parameters((4, 4), (4,))
    with pytest.raises(ValueError, match="kind 'sgd' must be 'muon' or 'adamw'"):
        MuonAdamW([{"kind": "sgd", "params": [matrix]}])
    with pytest.raises(ValueError, match="holds matrices only"):
        MuonAdamW([muon_group([matrix, vector])])


def test_state_loads_into_parameters_of_another_dtype():
    (p,), (q,) = parameters((4, 4)), parameters((4, 4))
    optimizer = MuonAdamW([adamw_group([p])])
    take_steps(optimizer, [p], range(300))
    half = MuonAdamW([adamw_group([q := torch.nn.Parameter(q.detach().bfloat16())])])
    half.load_state_dict(optimizer.state_dict())
    assert half.state[q]["step"].item() == 300, "bf16 cannot count beyond 256"
    take_steps(half, [q], range(1))
    assert half.state[q]["step"].item() == 301
