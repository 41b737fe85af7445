"""Bits per byte: the loss in a unit that does not depend on the tokenizer."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F


@torch.no_grad()
def bits_per_byte(model, batches: Iterable[torch.Tensor], bytes_of_token: torch.Tensor, gather=lambda t: t) -> float:
    """Total cross-entropy in bits over the raw bytes of the predicted tokens; special tokens count on neither side.

    batches: token ids (rows, length). bytes_of_token: (vocab_size,), 0 for special tokens. gather: sums over processes
    need each process's totals, shape (1, 2).
    """
    training = model.training
    model.eval()
    total = torch.zeros(1, 2, dtype=torch.float64)
    for ids in batches:
        targets = ids[:, 1:].reshape(-1)
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1].flatten(0, 1)
        nats = F.cross_entropy(logits.float(), targets.to(logits.device), reduction="none").cpu()
        size = bytes_of_token[targets]
        total += torch.stack([(nats * (size > 0)).double().sum(), size.double().sum()])
    model.train(training)
    nats, size = gather(total.to(model.device, torch.float32)).cpu().double().sum(0).tolist()
    return nats / math.log(2) / size
