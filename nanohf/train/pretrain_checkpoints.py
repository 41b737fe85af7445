"""Pretraining's checkpoints: checkpoints/pretrain/step-N, whose weights have no compiler's or DDP's names.

model.safetensors, optimizer.bin and random states as accelerate saves them; loader-RANK.json, the place in the text;
progress.json, `pretrain_loop.Position` and the horizon; complete.json, the seal of `runs.checkpoint_files`.
"""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

from nanohf.data.packing import dealt
from nanohf.runs.checkpoint_files import last_good, numbered, put_in_place
from nanohf.runs.stage_record import write_json
from nanohf.train.finite_weights import refuse_nonfinite

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
        with plain_names(accelerator):
            accelerator.save_state(str(partial))
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
    """Restores model, optimizer, random states and the loader of this process. Returns the progress.

    With another number of processes than wrote it, what waited on those is dealt out: nothing is lost or read twice.
    """
    with plain_names(accelerator):
        accelerator.load_state(str(checkpoint))
    state = progress_of(checkpoint)
    before, now = state["horizon"]["processes"], accelerator.num_processes
    loaders = [json.loads((checkpoint / f"loader-{i}.json").read_text()) for i in range(before)]
    if before == now:
        loader.load_state_dict(loaders[accelerator.process_index])
    else:
        loader.load_state_dict(dealt(loaders, accelerator.process_index, now))
    return state


@contextmanager
def plain_names(accelerator):
    """Within, accelerate saves and loads models without what torch.compile and DDP put around them."""

    def save(models, weights: list[dict], folder) -> None:
        weights[:] = [{plain(name): weight for name, weight in model.items()} for model in weights]

    def load(models: list, folder) -> None:
        models[:] = [accelerator.unwrap_model(model, keep_torch_compile=False) for model in models]

    hooks = [accelerator.register_save_state_pre_hook(save), accelerator.register_load_state_pre_hook(load)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def plain(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.removeprefix(WRAPPERS[0]).removeprefix(WRAPPERS[1])
    return name
