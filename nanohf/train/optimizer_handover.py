"""Optimizer state from one stage to the next: `keep_optimizer` of the one, `carry_optimizer` of the other."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from nanohf.errors import RecipeError
from nanohf.optim.muon import MuonAdamW
from nanohf.optim.named_state import load_named_state
from nanohf.runs.run_folder import OPTIMIZER


def save_moments(moments: dict, folder: Path) -> None:
    (folder / OPTIMIZER).parent.mkdir()
    save_file(moments, folder / OPTIMIZER)


def carry_over(optimizer: MuonAdamW, model, source: str | Path) -> None:
    """Gives the optimizer the moments and step counts that the stage in the folder `source` ended with.

    Raises:
        RecipeError: it kept none, or they are of another model.
    """
    if not (kept := Path(source) / OPTIMIZER).is_file():
        raise RecipeError(
            f"carry_optimizer: there is no {kept}. It is there if the stage before has keep_optimizer: true, "
            "and it is never pushed; run that stage so, or leave carry_optimizer out."
        )
    try:
        load_named_state(optimizer, model, load_file(kept))
    except ValueError as error:
        raise RecipeError(f"carry_optimizer: {kept} is of another model: {error}") from error
