"""Learning rate and momentum over a run."""

import pytest
import torch

from nanohf.optim import muon
from nanohf.optim.schedule import lr_factor, muon_momentum


def test_lr_factor_at_its_edges():
    factors = [lr_factor(step, 100, warmup=0, warmdown=0.2) for step in range(101)]
    assert factors[:81] == [1.0] * 81
    assert factors[90] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.05)
    assert factors[100] == 0.0
    assert [lr_factor(step, 10, warmup=4, warmdown=0) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [lr_factor(step, 4, warmup=0, warmdown=1.0) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert lr_factor(0, 1, warmup=0, warmdown=0.2) == 1.0, "a run of one step learns something"


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("warmdown", [0.0, 0.2, 0.65, 1.0])
@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_every_step_of_a_run_learns(steps, warmdown, warmup):
    assert all(0 < lr_factor(step, steps, warmup, warmdown) <= 1 for step in range(steps))


def test_muon_momentum():
    assert [muon_momentum(step) for step in (0, 150, 300, 10_000)] == pytest.approx([0.85, 0.90, 0.95, 0.95])
    assert muon_momentum(5, ramp=10) == pytest.approx(0.90)


@pytest.mark.parametrize(("nesterov", "share"), [(True, 0.75), (False, 0.5)])
def test_the_updates_momentum_is_its_groups(monkeypatch, nesterov, share):
    """From zero: momentum 0.5 of the gradient, and for Nesterov 0.5 of that and 0.5 of the gradient."""
    monkeypatch.setattr(muon, "_working_dtype", lambda device: torch.float32)
    monkeypatch.setattr(muon, "orthogonalize", lambda matrices: matrices)
    p = torch.nn.Parameter(torch.zeros(3, 4))
    p.grad = torch.randn(3, 4)
    muon.MuonAdamW([{"kind": "muon", "params": [p], "lr": 1.0, "momentum": 0.5, "nesterov": nesterov}]).step()
    torch.testing.assert_close(p.detach(), -share * p.grad)
