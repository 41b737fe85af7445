"""The loss and its gradients: of the next token, however the batch is cut, and in training's own attention."""

import pytest
import torch

V, SEQ = 128, 32


def assert_close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("fields", [{}, {"depth": 4, "num_key_value_heads": 1}], ids=["equal heads", "grouped"])
@pytest.mark.parametrize("kind", ["plain", "packed", "padded"])
def test_attention_when_training_on_a_cpu_equals_eager(either_model, kind, fields, monkeypatch):
    """Blocks of queries of which the last is not full; gradients of everything are compared."""
    monkeypatch.setattr("nanohf.model.modeling_nanohf.QUERY_BLOCK", 12)
    model = either_model(**fields).train()
    ids = torch.randint(V, (2, SEQ))
    inputs = {"input_ids": ids, "labels": ids, "use_cache": False}
    if kind == "packed":
        inputs["position_ids"] = torch.arange(SEQ).remainder(13).expand(2, -1)
    if kind == "padded":
        inputs["attention_mask"] = torch.ones_like(ids).index_put((torch.tensor(1), torch.arange(9)), torch.tensor(0))
        inputs["labels"] = ids.clone()
        inputs["labels"][1, :10] = -100  # the first real token has nothing real before it
    ours = model(**inputs).loss
    model.set_attn_implementation("eager")
    eager = model(**inputs).loss
    assert_close(ours, eager)
    for a, b in zip(gradients(model, ours), gradients(model, eager), strict=True):
        assert_close(a, b)


def test_loss_is_cross_entropy_of_the_next_token(either_model):
    model = either_model()
    ids = torch.randint(V, (2, SEQ))
    labels = ids.masked_fill(torch.rand(ids.shape) < 0.4, -100)
    output = model(ids, labels=labels)
    logp = output.logits.log_softmax(-1)[:, :-1]
    trained = labels[:, 1:] != -100
    total = -logp.gather(-1, ids[:, 1:, None])[..., 0][trained].sum()
    assert_close(output.loss, total / trained.sum())
    for items in (7, torch.tensor(7)):
        assert_close(model(ids, labels=labels, num_items_in_batch=items).loss, total / 7)


def test_accumulated_gradients_equal_the_whole_batchs(either_model):
    model = either_model()
    ids = torch.randint(V, (4, SEQ))
    labels = ids.masked_fill(torch.rand(ids.shape) < 0.4, -100)
    items = (labels[:, 1:] != -100).sum()
    whole = gradients(model, model(ids, labels=labels, use_cache=False).loss)
    passes = [model(i[None], labels=y[None], num_items_in_batch=items).loss for i, y in zip(ids, labels, strict=True)]
    for a, b in zip(gradients(model, sum(passes)), whole, strict=True):
        assert_close(a, b)
