"""Bytes that training holds whatever the batch: weights, gradients, optimizer. Activations come on top."""

from dataclasses import dataclass, fields

from nanohf.plan.counts import Parameters

FP32 = 4  # bytes: masters, gradients and optimizer state are fp32; bf16 is autocast's business
BUFFERS = {"embedding": 2, "lm_head": 2, "attention": 1, "mlp": 1}  # AdamW: two moments; Muon: one momentum


@dataclass(frozen=True)
class Bytes:
    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


def memory(parameters: Parameters) -> dict[str, Bytes]:
    """Bytes on one process without sharding, by part and under `total`."""
    sizes = {field.name: getattr(parameters, field.name) for field in fields(parameters)}
    parts = {part: Bytes(FP32 * n, FP32 * n, FP32 * BUFFERS[part] * n) for part, n in sizes.items()}
    total = (sum(getattr(b, field.name) for b in parts.values()) for field in fields(Bytes))
    return parts | {"total": Bytes(*total)}
