"""Held-out losses against the model's own loss, row by row, and bits per byte against pretraining's."""

import math
from types import SimpleNamespace

import pytest
import torch

from nanohf.data.chat_source import ChatSource
from nanohf.data.mixture import mixture_parts, repeated
from nanohf.evals.bpb import bits_per_byte
from nanohf.evals.held_out import HeldOut, compared, loss_of_conversations
from nanohf.tokenizer.train_bpe import token_bytes

SETTINGS = SimpleNamespace(
    seed=0, max_length=256, packing=True, packing_strategy="bfd", assistant_only_loss=True, dataset_num_proc=None
)
SOURCES = [
    ChatSource("builtin", "gsm8k", config="problems", rows=5),
    ChatSource("builtin", "messages", config="conversations", rows=7),
    ChatSource("builtin", "document", split="validation", rows=6),
]


@pytest.fixture
def held_out(tokenizer):
    parts = mixture_parts(tokenizer, SOURCES, SETTINGS, measured=True)
    rows = [repeated(part, source)[0] for part, source in zip(parts, SOURCES, strict=True)]
    return HeldOut(SOURCES, rows, token_bytes(tokenizer), batch_size=3), rows


@torch.no_grad()
def own_loss(model, row) -> tuple[float, int]:
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
    tokens = (labels[:, 1:] != -100).sum().item()
    return model(input_ids=ids, labels=labels).loss.item() * tokens, tokens


def test_it_is_the_models_own_loss_token_by_token(model, held_out):
    measure, rows = held_out
    figures = measure.measure(model)
    alone = [[own_loss(model, row) for row in part] for part in rows]
    for figure, part in zip(figures[:2], alone, strict=False):
        expected = sum(nats for nats, _ in part) / sum(tokens for _, tokens in part)
        assert figure["metric"] == "loss"
        assert figure["value"] == pytest.approx(expected, rel=1e-5)
    both = alone[0] + alone[1]
    expected = sum(nats for nats, _ in both) / sum(tokens for _, tokens in both)
    assert loss_of_conversations(figures) == pytest.approx(expected, rel=1e-5)


def test_documents_are_measured_in_pretrainings_bits_per_byte(model, tokenizer, held_out):
    measure, rows = held_out
    figure = measure.measure(model)[2]
    bytes_of_token = torch.tensor(token_bytes(tokenizer))
    sizes = [bytes_of_token[row["input_ids"]].sum().item() for row in rows[2]]
    each = [bits_per_byte(model, [torch.tensor([row["input_ids"]])], bytes_of_token) for row in rows[2]]
    expected = sum(bits * size for bits, size in zip(each, sizes, strict=True)) / sum(sizes)
    assert (figure["metric"], figure["source"]) == ("bits per byte", "builtin documents validation")
    assert figure["value"] == pytest.approx(expected, rel=1e-5)


def test_processes_share_the_rows(model, held_out):
    """Two processes' sums are those of one that has all rows."""
    measure, _ = held_out
    sums = []
    measure.measure(model, slice(1, None, 2), lambda t: sums.append(t) or t)
    second = iter(sums)
    together = measure.measure(model, slice(0, None, 2), lambda t: t + next(second))
    for a, b in zip(together, measure.measure(model), strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-5)
        assert a["tokens"] == b["tokens"]


def test_before_and_after_stand_beside_each_other(model, held_out):
    measure, _ = held_out
    before = measure.measure(model)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    after = measure.measure(model)
    changes = compared(before, after)
    assert [change["before"] for change in changes] == [figure["value"] for figure in before]
    assert changes[0]["after"] == pytest.approx(math.log(512), rel=1e-4)  # every token alike
    assert not model.training
