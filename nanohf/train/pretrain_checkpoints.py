"""Pretraining's checkpoints: checkpoints/pretrain/step-N, whose weights have no compiler's or DDP's names.

model.safetensors; optimizer.safetensors, its parameter groups in the header; loader-RANK.json, the place in the text;
progress.json, `pretrain_loop.Position` and the horizon; complete.json, the seal of `runs.checkpoint_files`. Nothing in
them runs when it is read, so they may come from others. Only FSDP2's shards are accelerate's own, which are pickled.
No random states: nothing in the loop draws a number.
"""

import json
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nanohf.data.packing import dealt
from nanohf.errors import RecipeError
from nanohf.runs.checkpoint_files import last_good, numbered, put_in_place
from nanohf.runs.stage_record import write_json
from nanohf.train.finite_weights import refuse_nonfinite

MODEL, OPTIMIZER, GROUPS = "model.safetensors", "optimizer.safetensors", "param_groups"
WRAPPERS = ("_orig_mod.", "module.")  # that torch.compile and DDP put before a parameter's name


def save_checkpoint(accelerator, loader, state: dict, checkpoints: Path, keep: int) -> None:
    """Writes step-N beside the others and renames it when complete; drops all but the newest `keep`.

    Raises:
        RecipeError: a weight is not finite.
    """
    final = checkpoints / f"step-{state['step']:08d}"
    partial = checkpoints / f".{final.name}.partial"
    for model in accelerator._models:
        refuse_nonfinite(model.named_parameters(), str(final), last_good(checkpoints))
    try:
        if accelerator.is_main_process:
            for half in checkpoints.glob(".step-*.partial"):  # of a run that was killed while it wrote
                shutil.rmtree(half)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        save_state(accelerator, partial)
        write_json(partial / f"loader-{accelerator.process_index}.json", loader.state_dict())
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_json(partial / "progress.json", state)
            put_in_place(partial, final)
            for old in numbered(checkpoints)[:-keep]:
                shutil.rmtree(old)
    except BaseException:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    accelerator.wait_for_everyone()


def progress_of(checkpoint: Path) -> dict:
    return json.loads((checkpoint / "progress.json").read_text())


def load_checkpoint(accelerator, loader, checkpoint: Path) -> dict:
    """Restores model, optimizer and the loader of this process. Returns the progress.

    With another number of processes than wrote it, what waited on those is dealt out: nothing is lost or read twice.

    Raises:
        RecipeError: it is of another model, or an older nanohf wrote it.
    """
    load_state(accelerator, checkpoint)
    state = progress_of(checkpoint)
    before, now = state["horizon"]["processes"], accelerator.num_processes
    loaders = [json.loads((checkpoint / f"loader-{i}.json").read_text()) for i in range(before)]
    if before == now:
        loader.load_state_dict(loaders[accelerator.process_index])
    else:
        loader.load_state_dict(dealt(loaders, accelerator.process_index, now))
    return state


def save_state(accelerator, folder: Path) -> None:
    """Model and optimizer. All processes call it, and the first one writes."""
    if accelerator.is_fsdp2:
        accelerator.save_state(str(folder))
        return
    (model,), (optimizer,) = accelerator._models, accelerator._optimizers
    state = optimizer.state_dict()  # of all processes
    if accelerator.is_main_process:
        moments = {f"{i}.{kind}": t for i, kept in state["state"].items() for kind, t in kept.items()}
        save_file({plain(name): weight for name, weight in model.state_dict().items()}, folder / MODEL)
        save_file(moments, folder / OPTIMIZER, {GROUPS: json.dumps(state["param_groups"])})


def load_state(accelerator, checkpoint: Path) -> None:
    if accelerator.is_fsdp2:
        accelerator.load_state(str(checkpoint))
        return
    (model,), (optimizer,) = accelerator._models, accelerator._optimizers
    if not (checkpoint / OPTIMIZER).is_file():
        raise RecipeError(
            f"{checkpoint} has no {OPTIMIZER}: an older nanohf or FSDP wrote it. Resume it with that, or start the "
            "stage again: --from pretrain"
        )
    state: dict[int, dict] = {}
    with safe_open(checkpoint / OPTIMIZER, "pt") as moments:
        groups = json.loads(moments.metadata()[GROUPS])
        for name in moments.keys():  # noqa: SIM118  # not a mapping
            index, _, kind = name.partition(".")
            state.setdefault(int(index), {})[kind] = moments.get_tensor(name)
    try:
        plainly = accelerator.unwrap_model(model, keep_torch_compile=False)
        plainly.load_state_dict(load_file(checkpoint / MODEL))
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise RecipeError(f"{checkpoint} is of another model than the recipe's: {why}") from error


def plain(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.removeprefix(WRAPPERS[0]).removeprefix(WRAPPERS[1])
    return name
