"""What needs a CUDA device: `pytest -m gpu`. Not run by make test; written on a machine without one."""

import copy

import pytest
import torch

from nanohf.generation.engine import Engine
from nanohf.optim.groups import build_optimizer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_the_engine_gives_what_it_gives_on_the_cpu(model, tokenizer):
    prompts = [tokenizer.encode(text) for text in ("Mia has 3 apples.", "Go")]
    on_cpu = Engine(model, tokenizer).generate(prompts, max_new_tokens=16, temperature=0)
    on_gpu = Engine(copy.deepcopy(model).cuda(), tokenizer).generate(prompts, max_new_tokens=16, temperature=0)
    assert [c.ids for (c,) in on_gpu] == [c.ids for (c,) in on_cpu]


def test_the_optimizer_steps_as_on_the_cpu(model):
    """Orthogonalisation runs in bf16 there, so matrices agree to its precision only; AdamW's part closely."""
    other = copy.deepcopy(model).cuda()
    ids = torch.randint(20, 500, (2, 32))
    for m in (model, other):
        optimizer = build_optimizer(m)
        m(input_ids=ids.to(m.device), labels=ids.to(m.device)).loss.backward()
        optimizer.step()
    torch.testing.assert_close(other.lm_head.weight.cpu(), model.lm_head.weight, rtol=1e-3, atol=1e-4)
    layer = model.model.layers[0].mlp.fc1.weight
    torch.testing.assert_close(other.model.layers[0].mlp.fc1.weight.cpu(), layer, rtol=0, atol=5e-3)


def test_bf16_autocast_trains(model):
    model.cuda()
    ids = torch.randint(20, 500, (4, 64), device="cuda")
    optimizer = build_optimizer(model)
    losses = []
    for _ in range(10):
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
