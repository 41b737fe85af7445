"""Held-out sources by the same measure before and after a stage: what it taught, and what it made the model forget."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from nanohf.data.chat_source import ChatSource


class HeldOut:
    """Rows {input_ids, labels} of each source. Loss per token, so that row length and batch size do not matter.

    bytes_of_token: (vocab_size,), 0 for special tokens. share: of each source's rows, sorted by length, which are this
    process's; total: sums a tensor over the processes.
    """

    def __init__(self, sources: list[ChatSource], rows: list, bytes_of_token: list[int], batch_size: int = 8):
        self.sources, self.batch_size = sources, batch_size
        self.rows = [sorted(part, key=lambda row: len(row["input_ids"])) for part in rows]
        self.bytes = [sum(bytes_of_token[i] for row in part for i in row["input_ids"]) for part in rows]

    def measure(self, model, share=slice(None), total: Callable = lambda t: t) -> list[dict]:
        """For each source {source, metric, value, tokens}: nats per trained token; bits per byte for documents."""
        training = model.training
        model.eval()
        figures = []
        for source, rows, size in zip(self.sources, self.rows, self.bytes, strict=True):
            sums = summed_loss(model, rows[share], self.batch_size)
            nats, tokens = total(sums.to(model.device, torch.float32)).cpu().double().tolist()
            value = {"metric": "bits per byte", "value": nats / math.log(2) / size} if source.is_document else {}
            figures.append({"source": source.name, "metric": "loss", "value": nats / tokens, "tokens": tokens} | value)
        model.train(training)
        return figures


@torch.no_grad()
def summed_loss(model, rows: list[dict], batch_size: int) -> torch.Tensor:
    """(2,): the cross-entropy, in nats, of all tokens with a label, and how many these are."""
    sums = torch.zeros(2, dtype=torch.float64)
    for at in range(0, len(rows), batch_size):
        batch = rows[at : at + batch_size]
        # Padded on the right, where causal attention from a real token never looks.
        ids = pad_sequence([torch.tensor(row["input_ids"]) for row in batch], batch_first=True)
        labels = pad_sequence([torch.tensor(row["labels"]) for row in batch], batch_first=True, padding_value=-100)
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1].flatten(0, 1).float()
        targets = labels[:, 1:].flatten()
        nats = F.cross_entropy(logits, targets.to(logits.device), reduction="sum")
        sums += torch.tensor([nats.item(), (targets != -100).sum().item()], dtype=torch.float64)
    return sums


def compared(before: list[dict], after: list[dict]) -> list[dict]:
    """For each source {source, metric, tokens, before, after}."""
    return [
        {k: a[k] for k in ("source", "metric", "tokens")} | {"before": b["value"], "after": a["value"]}
        for b, a in zip(before, after, strict=True)
    ]


def loss_of_conversations(figures: list[dict]) -> float:
    """Over all sources but documents, each token with the same weight."""
    losses = [figure for figure in figures if figure["metric"] == "loss"]
    return sum(f["value"] * f["tokens"] for f in losses) / sum(f["tokens"] for f in losses)
