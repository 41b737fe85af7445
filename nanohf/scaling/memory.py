"""Bytes that training holds whatever the batch: weights, gradients, optimizer. Activations come on top."""

from dataclasses import dataclass, fields

from nanohf.scaling.parameters import Parameters

FP32 = 4  # bytes: masters, gradients and optimizer state are fp32; bf16 is autocast's business
MUON = ("attention", "mlp", "value_gates")  # one momentum; AdamW, which trains the rest, has two moments


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
    parts = {part: Bytes(FP32 * n, FP32 * n, FP32 * (1 if part in MUON else 2) * n) for part, n in sizes.items() if n}
    total = (sum(getattr(b, field.name) for b in parts.values()) for field in fields(Bytes))
    return parts | {"total": Bytes(*total)}
