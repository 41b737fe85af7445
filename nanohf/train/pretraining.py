"""The pretraining loop: horizon, steps, checkpoints. What is measured on the way is handed in by the stage."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from nanohf.data.loader import PackedLoader
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.schedule import lr_factor, muon_momentum
from nanohf.plan.horizon import horizon_tokens, pretrain_steps
from nanohf.recipe import RecipeError
from nanohf.runs import write_json

from .progress import Speedometer, say


@dataclass
class Horizon:
    """How long to train, each number derived once. See `derive_horizon`."""

    steps: int
    accumulation: int  # forward passes of a step on each process
    batch_tokens: int

    @property
    def tokens(self) -> int:
        return self.steps * self.batch_tokens


def build_model(config, tokenizer) -> NanoHFForCausalLM:
    """The recipe's model with its first random weights."""
    chosen = {"num_attention_heads": config.num_attention_heads} if config.num_attention_heads else {}
    return NanoHFForCausalLM(
        NanoHFConfig.from_depth(
            config.depth,
            vocab_size=len(tokenizer),
            max_position_embeddings=max(2048, config.max_length),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **chosen,
        )
    )


def choose_precision(wanted: str, device: torch.device) -> str:
    """`mixed_precision` for the Accelerator, printed with its reason. Weights and optimizer state stay fp32.

    Of the launcher, "no" counts as no choice: it says so by itself where nobody chose.

    Raises:
        RecipeError: the launcher chose something else than bf16.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in ("no", "bf16"):
        raise RecipeError(f"accelerate's mixed_precision={launched} must be bf16 or no: pretraining scales no losses")
    if launched == "bf16":
        chosen, why = "bf16", "chosen with accelerate launch or its config"
    elif wanted != "auto":
        chosen, why = wanted, "chosen in the recipe"
    elif native := multiplies_bf16(device.type):
        chosen, why = "bf16", f"auto: this machine's {native} multiplies it"
    else:
        chosen, why = "no", f"auto: {device.type} does not multiply bf16 by itself"
    say(f"precision: {'fp32' if chosen == 'no' else chosen} ({why}); weights and optimizer state fp32")
    return chosen


def multiplies_bf16(device_type: str) -> str | None:
    """The unit that does, or None."""
    if device_type == "cuda":
        return torch.cuda.get_device_name() if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device_type == "cpu" and torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX-512 BF16" if device_type == "cpu" and torch.cpu._is_avx512_bf16_supported() else None


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    """torch.compile, or the model as it is where the machine has no compiler for it."""
    try:
        torch.compile(torch.neg)(torch.ones(2, device=model.device))
    except Exception as error:  # a missing compiler, header or Triton: each has an exception of its own
        say(f"torch_compile: not on this machine ({str(error).strip().splitlines()[0]}); training goes on without")
        return model
    return torch.compile(model, dynamic=False)


def derive_horizon(config, parameters: int, num_processes: int) -> Horizon:
    """Steps and accumulation from the recipe, printed with their inputs.

    Raises:
        RecipeError: batch_tokens is no multiple of what the processes read in one pass.
    """
    rows = config.per_device_train_batch_size
    one_pass = rows * config.max_length * num_processes
    if config.batch_tokens % one_pass:
        fits = max(1, round(config.batch_tokens / one_pass)) * one_pass
        raise RecipeError(
            f"batch_tokens={config.batch_tokens:,} is not a multiple of {rows} rows x {config.max_length} tokens x "
            f"{num_processes} process(es) = {one_pass:,}. Try {fits:,}."
        )
    if config.max_steps > 0:
        steps = config.max_steps
        say(f"horizon: {steps * config.batch_tokens:,} tokens = max_steps {steps:,} x {config.batch_tokens:,} a step")
    else:
        tokens = horizon_tokens(parameters, config.tokens_per_parameter)
        steps = pretrain_steps(tokens, config.batch_tokens)
        say(f"horizon: {tokens:,} tokens = {config.tokens_per_parameter} x {parameters:,} parameters")
        say(f"steps: {steps:,} = {tokens:,} tokens // {config.batch_tokens:,} a step")
    horizon = Horizon(steps, config.batch_tokens // one_pass, config.batch_tokens)
    say(
        f"a step: {config.batch_tokens:,} tokens = {rows} rows x {config.max_length} tokens x {num_processes} "
        f"process(es) x {horizon.accumulation} pass(es)"
    )
    return horizon


def pretrain(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: PackedLoader,
    horizon: Horizon,
    config,
    checkpoints: Path,
    measure: Callable[[int], dict],
) -> dict:
    """Trains to the horizon, from the newest checkpoint if there is one.

    measure(step) gives {"bpb": ..., ...}; it is called before the first step, every eval_steps and at the end.
    Returns minutes, tokens, tokens_per_second and the first and last measure.
    """
    model, optimizer = accelerator.prepare(model, optimizer)
    state = {"step": 0, "seconds": 0.0, "before": None}
    if newest := newest_checkpoint(checkpoints):
        state = load_checkpoint(accelerator, loader, newest)
        say(f"resumed from step {state['step']:,}")
    else:
        state["before"] = measure(0)

    base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
    speed = Speedometer(horizon.steps, state["step"], config.logging_steps)
    started = time.perf_counter() - state["seconds"]
    model.train()
    while (step := state["step"]) < horizon.steps:
        factor = lr_factor(step, horizon.steps, config.warmup_steps, config.warmdown_ratio)
        for group, base in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = base * factor
            if group["kind"] == "muon":
                group["momentum"] = muon_momentum(step)

        loss = train_step(accelerator, model, optimizer, loader, horizon.accumulation, config.max_grad_norm)
        state["step"] = step = step + 1
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}; the last good checkpoint is in {checkpoints}")
        speed.step(step, horizon.batch_tokens, loss=loss, lr_factor=factor)
        accelerator.log({"loss": loss, "lr_factor": factor}, step=step)

        if step % config.eval_steps == 0 and step < horizon.steps:
            with speed.paused():
                accelerator.log(measure(step), step=step)
        if step % config.save_steps == 0 and step < horizon.steps:
            state["seconds"] = time.perf_counter() - started
            with speed.paused():
                save_checkpoint(accelerator, loader, state, checkpoints, config.save_total_limit)

    after = measure(step)
    accelerator.log(after, step=step)
    seconds = time.perf_counter() - started
    return {
        "minutes": seconds / 60,
        "tokens": horizon.tokens,
        "tokens_per_second": speed.mean,
        "before": state["before"],
        "after": after,
        "documents_cut": loader.cut,
    }


def train_step(accelerator, model, optimizer, loader, accumulation: int, max_grad_norm: float) -> float:
    """One update over `accumulation` passes; gradients meet between processes in the last one only. Mean loss."""
    total = torch.zeros((), device=accelerator.device)
    for i in range(accumulation):
        ids = next(loader).to(accelerator.device)
        with accelerator.no_sync(model) if i < accumulation - 1 else nullcontext():
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss / accumulation
            accelerator.backward(loss)
        total += loss.detach()
    if max_grad_norm:
        accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return accelerator.reduce(total, "mean").item()


def save_checkpoint(accelerator, loader, state: dict, checkpoints: Path, keep: int) -> None:
    """Writes step-N beside the others and renames it when complete; drops all but the newest `keep`."""
    final = checkpoints / f"step-{state['step']:08d}"
    partial = checkpoints / f".{final.name}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
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

    Raises:
        RecipeError: the checkpoint was written by another number of processes.
    """
    state = json.loads((checkpoint / "progress.json").read_text())
    if (before := state.pop("num_processes")) != accelerator.num_processes:
        raise RecipeError(
            f"{checkpoint} was written by {before} process(es), now there are {accelerator.num_processes}. "
            "Resume with as many, or delete it."
        )
    accelerator.load_state(str(checkpoint))
    loader.load_state_dict(json.loads((checkpoint / f"loader-{accelerator.process_index}.json").read_text()))
    return state


def newest_checkpoint(checkpoints: Path) -> Path | None:
    return max(checkpoints.glob("step-*"), default=None)
