"""Pretraining's checkpoints: checkpoints/pretrain/step-N, written beside the others and renamed when complete."""

import json
import shutil
from pathlib import Path

from nanohf import console
from nanohf.data.packing import furthest
from nanohf.runs.run_folder import write_json


def save_checkpoint(accelerator, loader, state: dict, checkpoints: Path, keep: int) -> None:
    """Writes step-N beside the others and renames it when complete; drops all but the newest `keep`."""
    final = checkpoints / f"step-{state['step']:08d}"
    partial = checkpoints / f".{final.name}.partial"
    if accelerator.is_main_process:
        for half in checkpoints.glob(".step-*.partial"):  # of a run that was killed while it wrote
            shutil.rmtree(half)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    write_json(partial / f"loader-{accelerator.process_index}.json", loader.state_dict())
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_json(partial / "progress.json", state | {"num_processes": accelerator.num_processes})
        partial.rename(final)
        for old in sorted(checkpoints.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator, loader, checkpoint: Path) -> dict:
    """Restores model, optimizer, random states and the loader of this process. Returns the progress.

    With another number of processes than wrote it, text goes on behind the last document that any of them had read.
    """
    state = json.loads((checkpoint / "progress.json").read_text())
    accelerator.load_state(str(checkpoint))
    before, now = state.pop("num_processes"), accelerator.num_processes
    if before == now:
        loader.load_state_dict(json.loads((checkpoint / f"loader-{accelerator.process_index}.json").read_text()))
    else:
        console.progress(
            f"written by {before} process(es), now {now}: documents that waited for a row there are skipped"
        )
        loaders = [json.loads((checkpoint / f"loader-{i}.json").read_text()) for i in range(before)]
        loader.load_state_dict(furthest(loaders))
    return state


def newest_checkpoint(checkpoints: Path) -> Path | None:
    return max(checkpoints.glob("step-*"), default=None)


def last_good(checkpoints: Path) -> Path | str:
    return newest_checkpoint(checkpoints) or "the beginning: there is no checkpoint yet"
