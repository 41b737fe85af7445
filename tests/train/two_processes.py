"""What test_two_processes launches on each process: train FOLDER SETTINGS | stage|killed|bf16 FOLDER ARGUMENTS."""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, DistributedType, PartialState
from accelerate.utils import broadcast_object_list
from torch.distributed.tensor import DTensor

from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim import muon
from nanohf.optim.groups import build_optimizer
from nanohf.optim.named_state import load_named_state, named_state
from nanohf.recipe.loading import load_recipe
from nanohf.stages import pretrain as stage
from nanohf.train import pretrain_loop as pretraining

ROWS, LENGTH = 8, 32  # of a step, over all processes


def allow_fsdp_on_cpu() -> None:
    """accelerate heeds FSDP on accelerators only, where gloo and the CPU do as well."""
    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init


def tiny() -> NanoHFForCausalLM:
    """Three layers: matrices that two processes cannot halve by count; 97 tokens: rows that they cannot halve."""
    torch.manual_seed(0)
    return NanoHFForCausalLM(NanoHFConfig.from_depth(3, vocab_size=97, hidden_size=32, num_attention_heads=2))


def rows(accelerator, steps: range, passes: int):
    """This process's share of each step's rows, in `passes` batches."""
    for step in steps:
        ids = torch.randint(8, (ROWS, LENGTH), generator=torch.Generator().manual_seed(step)).cumsum(1) % 97
        mine = ids.tensor_split(accelerator.num_processes)[accelerator.process_index]
        yield from mine.tensor_split(passes)


def prepared(accelerator, **settings):
    model = tiny()
    return accelerator.prepare(model, build_optimizer(model, sharded=True, **settings))


def steps(accelerator, model, optimizer, numbers: range, passes: int) -> list[float]:
    batches = rows(accelerator, numbers, passes)
    return [pretraining.train_step(accelerator, model, optimizer, batches, passes, 1.0)[0] for _ in numbers]


def state_elements(optimizer) -> int:
    """Numbers of optimizer state that lie on this process."""
    tensors = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
    return sum((t.to_local() if hasattr(t, "to_local") else t).numel() for t in tensors)


def train(folder: Path, passes: int = 1, **settings) -> dict:
    """20 steps with a checkpoint after 10, the last 10 again from the checkpoint, and what there is to compare.

    Products in fp32: bf16 turns the 1e-7 by which sums differ between processes into 1e-3 of an update.
    """
    muon._working_dtype = lambda device: torch.float32
    accelerator = Accelerator(cpu=True)
    model, optimizer = prepared(accelerator, **settings)
    losses = steps(accelerator, model, optimizer, range(10), passes)
    accelerator.save_state(str(folder / "state"))
    losses += steps(accelerator, model, optimizer, range(10, 20), passes)
    weights = accelerator.get_state_dict(model)
    own = state_elements(optimizer)
    named = named_state(optimizer.optimizer, accelerator.unwrap_model(model))
    collected = sum(t.numel() for name, t in named.items() if not name.endswith(".step"))
    packed = optimizer.state_dict()["state"].values()
    packed = sum(t.numel() for kept in packed for t in kept.values() if not isinstance(t, DTensor))
    (named,) = broadcast_object_list([named])

    accelerator.free_memory()
    resumed, again = prepared(accelerator, **settings)
    carried = named
    if accelerator.distributed_type != DistributedType.FSDP:  # whose split parameters only pretraining has
        load_named_state(again.optimizer, accelerator.unwrap_model(resumed), named)
        (carried,) = broadcast_object_list([named_state(again.optimizer, accelerator.unwrap_model(resumed))])
    came_over = carried.keys() == named.keys() and all(torch.equal(t, named[name]) for name, t in carried.items())
    accelerator.load_state(str(folder / "state"))
    after = steps(accelerator, resumed, again, range(10, 20), passes)
    same = all(torch.equal(t, weights[name]) for name, t in accelerator.get_state_dict(resumed).items())
    found = {"losses": losses, "resumed": after, "same": same, "state": own, "type": str(accelerator.distributed_type)}
    found |= {"world_size": accelerator.num_processes, "collected": collected, "packed": packed}
    found |= {"named": {name: t.double().norm().item() for name, t in named.items()}, "carried": came_over}
    (folder / f"found-{accelerator.process_index}.json").write_text(json.dumps(found))
    return found


def killed_stage(folder: Path, arguments: list[str]) -> None:
    """The pretrain stage, killed in its 7th step and started again."""
    original, calls = pretraining.train_step, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(*args)

    pretraining.train_step = killed
    try:
        stage.main([*arguments, "--run_dir", str(folder)])
    except KeyboardInterrupt:
        pretraining.train_step = original
    stage.main([*arguments, "--run_dir", str(folder)])


def bf16_losses(accelerator, folder: Path) -> list[float]:
    """Under bf16, with what a layer is given on the way, in dtypes.json."""
    torch.manual_seed(0)
    model = NanoHFForCausalLM(NanoHFConfig.from_depth(2, vocab_size=97, hidden_size=32, num_attention_heads=2))
    dtypes = {}

    def look(layer, arguments, named):
        dtypes["hidden"] = str(arguments[0].dtype)
        dtypes["rotary"] = [str(part.dtype) for part in named["position_embeddings"]]

    model.model.layers[1].register_forward_pre_hook(look, with_kwargs=True)
    with pretraining.no_wrapped_forward(accelerator):
        model, optimizer = accelerator.prepare(model, build_optimizer(model, sharded=True, lr_scale=0.01))
    losses = steps(accelerator, model, optimizer, range(3), 1)
    (folder / "dtypes.json").write_text(json.dumps(dtypes))
    return losses


def bf16(folder: Path, arguments: list[str]) -> None:
    recipe = load_recipe("pretrain", [*arguments, "--run_dir", str(folder), "--mixed_precision", "bf16"])
    losses = bf16_losses(stage.open_accelerator(recipe), folder)
    (folder / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        allow_fsdp_on_cpu()
    mode, folder, *arguments = sys.argv[1:]
    if mode == "train":
        train(Path(folder), **json.loads(arguments[0]))
    elif mode == "bf16":
        bf16(Path(folder), arguments)
    elif mode == "stage":
        stage.main([*arguments, "--run_dir", folder])
    else:
        killed_stage(Path(folder), arguments)
