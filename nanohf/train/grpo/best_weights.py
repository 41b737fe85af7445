"""The trained weights of the best steps so far, in files beside the checkpoints, and back into the model."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate.utils import broadcast, broadcast_object_list
from safetensors.torch import load_file, save_file

from nanohf import console
from nanohf.runs.checkpoint_files import flush


class BestWeights:
    """best/STEP.safetensors: the trained parameters alone, which with LoRA are the adapters'."""

    def __init__(self, model: torch.nn.Module, folder: Path):
        self.folder = folder / "best"
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def file(self, step: int) -> Path:
        return self.folder / f"{step}.safetensors"

    def steps(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.safetensors"))

    def keep(self, step: int) -> None:
        """Whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{step}.partial"
        save_file({name: p.detach().contiguous().cpu() for name, p in self.parameters.items()}, partial)
        flush(partial)
        os.replace(partial, self.file(step))

    def drop(self, steps: Iterable[int]) -> None:
        for step in list(steps):
            self.file(step).unlink(missing_ok=True)

    def restore(self, step: int | None) -> int | None:
        """Gives the model, on every process, the weights of the step that the first process names. None: as they are.

        Returns that step.
        """
        (step,) = broadcast_object_list([step])
        if step is None:
            return None
        kept = load_file(self.file(step)) if console.is_first() else {}
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if kept:
                    parameter.copy_(kept[name])
                broadcast(parameter.data)
        return step
