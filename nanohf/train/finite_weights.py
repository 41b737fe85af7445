"""Weights that are not finite are never written: neither a checkpoint nor a result of any stage."""

from collections.abc import Iterable

import torch

from nanohf.errors import RecipeError
from nanohf.optim.sharding import local


@torch.no_grad()
def refuse_nonfinite(weights: Iterable[tuple[str, torch.Tensor]], what: str, last_good) -> None:
    """weights: (name, tensor); what: would be written; last_good: the checkpoint that is not affected.

    Raises:
        RecipeError
    """
    bad = [name for name, weight in weights if not local(weight).isfinite().all()]
    if bad:
        raise RecipeError(
            f"{what} is not written: {len(bad)} of its weights have values that are not finite, {bad[0]} first. The "
            f"last good checkpoint is {last_good}; the learning rates are too high, and lower ones need a fresh "
            "start: --from with this stage"
        )
