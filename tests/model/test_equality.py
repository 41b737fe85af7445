"""The classic model is transformers' NanoChatForCausalLM: the same weights give the same numbers."""

import pytest
import torch
from transformers import DynamicCache, NanoChatConfig, NanoChatForCausalLM

from nanohf.convert.nanochat_model import FIELDS


@pytest.fixture(params=[{}, {"depth": 3, "num_key_value_heads": 1}, {"final_logit_softcapping": None}], ids=str)
def models(request, small_model):
    ours = small_model(**({"depth": 2} | request.param))
    config = NanoChatConfig(**{field: getattr(ours.config, field) for field in FIELDS})
    theirs = NanoChatForCausalLM(config).eval()
    theirs.load_state_dict(ours.state_dict())  # strict: the names are the same
    return ours, theirs


def assert_close(ours, theirs):
    """1e-5 is the promise. The operations are the same in the same order, so that one usually sees 0."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_full(models, attention):
    for model in models:
        model.set_attn_implementation(attention)
    ids = torch.randint(128, (3, 40))
    ours, theirs = (model(ids, output_hidden_states=True) for model in models)
    assert_close(ours.logits, theirs.logits)
    for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert_close(a, b)


@torch.no_grad()
def test_cached(models):
    ids = torch.randint(128, (2, 24))
    logits = []
    for model in models:
        cache = DynamicCache(config=model.config)
        pieces = [ids[:, :16], *ids[:, 16:].split(1, dim=1)]
        logits.append(torch.cat([model(piece, past_key_values=cache).logits for piece in pieces], dim=1))
    assert_close(*logits)
    assert_close(logits[0], models[0](ids, use_cache=False).logits)


@torch.no_grad()
def test_left_padded(models):
    ids = torch.randint(128, (2, 24))
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    ours, theirs = (model(ids, attention_mask=mask, position_ids=positions).logits for model in models)
    assert_close(ours[mask.bool()], theirs[mask.bool()])


def test_loss_and_gradients(models):
    ids = torch.randint(128, (2, 24))
    labels = ids.masked_fill(torch.rand(ids.shape) < 0.3, -100)
    losses = [model(ids, labels=labels, num_items_in_batch=torch.tensor(20)).loss for model in models]
    assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("options", [{"do_sample": False}, {"do_sample": True, "top_k": 20}], ids=str)
def test_generate(models, options):
    ids = torch.randint(128, (2, 7))
    generated = []
    for model in models:
        torch.manual_seed(3)
        generated.append(model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, **options))
    assert torch.equal(*generated)
