"""Bits per byte against a sum over single tokens."""

import math

import pytest
import torch

from nanohf.evals.bpb import bits_per_byte
from nanohf.tokenizer.train_bpe import encode_documents, token_bytes

TEXTS = ["There is a cat, é 🙂.", "12 + 34 = 46\n" * 4, "A farmer has 7 hens. " * 3]


@pytest.fixture(scope="module")
def rows(tokenizer) -> torch.Tensor:
    """(6, 32): documents one after another behind their BOS, with special tokens among them."""
    ids = [i for document in encode_documents(tokenizer, TEXTS * 9) for i in (*document, tokenizer.eos_token_id)]
    return torch.tensor(ids[: 6 * 32]).view(6, 32)


@torch.no_grad()
def by_hand(model, tokenizer, rows: torch.Tensor) -> float:
    bits = size = 0.0
    for row in rows:
        shares = model(input_ids=row[None], use_cache=False).logits[0].double().softmax(-1)
        for at in range(1, len(row)):
            token = row[at].item()
            if token in tokenizer.all_special_ids:
                continue
            bits -= math.log2(shares[at - 1, token])
            size += len(tokenizer.convert_ids_to_tokens(token))
    return bits / size


def test_equals_a_sum_over_tokens(model, tokenizer, rows):
    sizes = torch.tensor(token_bytes(tokenizer))
    assert (sizes[rows] == 0).any(), "special tokens among the targets"
    assert bits_per_byte(model, [rows], sizes) == pytest.approx(by_hand(model, tokenizer, rows), rel=1e-5)


def test_how_rows_are_split_into_batches_does_not_matter(model, tokenizer, rows):
    sizes = torch.tensor(token_bytes(tokenizer))
    whole = bits_per_byte(model, [rows], sizes)
    for split in (1, 2, 4):
        assert bits_per_byte(model, rows.split(split), sizes) == pytest.approx(whole, rel=1e-6)
    assert bits_per_byte(model, iter([rows]), sizes) == whole


def test_special_tokens_count_on_neither_side(model, tokenizer, rows):
    """Adding special tokens as targets, at the end of rows so that no context changes, changes nothing."""
    sizes = torch.tensor(token_bytes(tokenizer))
    longer = torch.cat([rows, torch.full((6, 1), tokenizer.bos_token_id)], dim=1)
    assert bits_per_byte(model, [longer], sizes) == pytest.approx(bits_per_byte(model, [rows], sizes), rel=1e-6)


def test_a_model_that_knows_nothing(model, tokenizer, rows):
    """All logits equal: log2(V) bits a token."""
    with torch.no_grad():
        model.lm_head.weight.zero_()
    sizes = torch.tensor(token_bytes(tokenizer))
    counted = sizes[rows[:, 1:]]
    expected = math.log2(len(tokenizer)) * (counted > 0).sum().item() / counted.sum().item()
    assert bits_per_byte(model, [rows], sizes) == pytest.approx(expected, rel=1e-6)


def test_processes_put_their_totals_together(model, tokenizer, rows):
    sizes = torch.tensor(token_bytes(tokenizer))
    totals = []
    for part in rows.split(2):
        bits_per_byte(model, [part], sizes, gather=lambda total: totals.append(total) or total)
    together = bits_per_byte(model, [rows[:2]], sizes, gather=lambda _: torch.cat(totals))
    assert together == pytest.approx(bits_per_byte(model, [rows], sizes), rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode(model, tokenizer, rows, training):
    model.train(training)
    bits_per_byte(model, [rows], torch.tensor(token_bytes(tokenizer)))
    assert model.training is training
