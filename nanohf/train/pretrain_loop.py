"""The pretraining loop: horizon, steps, checkpoints. What is measured on the way is handed in by the stage."""

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from nanohf import console
from nanohf.data.packing import PackedLoader, dealt
from nanohf.errors import RecipeError
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.schedule import lr_factor, muon_momentum
from nanohf.runs.run_folder import write_json
from nanohf.scaling import parameters as counts
from nanohf.scaling.horizon import pretraining
from nanohf.train.progress import Speedometer


@dataclass
class Horizon:
    """How long to train and how fast to learn, each number derived once. See `derive_horizon`."""

    steps: int
    accumulation: int  # forward passes of a step on each process
    batch_tokens: int
    lr_scale: float = 1.0

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
            preset=config.preset,
            max_position_embeddings=max(2048, config.max_length),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **chosen,
        )
    )


def derive_horizon(config, vocab_size: int, num_processes: int) -> Horizon:
    """Steps, batch, accumulation and the learning rates' factor from the recipe, printed with their inputs.

    Raises:
        RecipeError: batch_tokens is no multiple of what the processes read in one pass.
    """
    size = counts.parameters(config.depth, vocab_size, config.preset, config.num_attention_heads)
    keys = ("tokens_per_parameter", "tokens_per_scaling_parameter", "batch_tokens", "max_steps", "lr_scale")
    rows = config.per_device_train_batch_size
    one_pass = rows * config.max_length * num_processes
    plan = pretraining(size, one_pass=one_pass, **{key: getattr(config, key) for key in keys})
    accumulation = plan.batch_tokens // one_pass
    if plan.batch_tokens % one_pass:
        fits = max(1, round(plan.batch_tokens / one_pass)) * one_pass
        raise RecipeError(
            f"batch_tokens={plan.batch_tokens:,} is not a multiple of {rows} rows x {config.max_length} tokens x "
            f"{num_processes} process(es) = {one_pass:,}. Try {fits:,}."
        )
    console.progress(f"horizon: {plan.tokens:,} tokens = {plan.tokens_from}")
    console.progress(f"a step: {plan.batch_tokens:,} tokens = {plan.batch_from}")
    console.progress(
        f"  = {rows} rows x {config.max_length} tokens x {num_processes} process(es) x {accumulation} pass(es)"
    )
    console.progress(f"steps: {plan.steps:,} = {plan.tokens:,} tokens // {plan.batch_tokens:,} a step")
    console.progress(f"learning rates: x {plan.lr_scale:.3g} = {plan.lr_from}")
    return Horizon(plan.steps, accumulation, plan.batch_tokens, plan.lr_scale)


def pretrain(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: PackedLoader,
    horizon: Horizon,
    config,
    checkpoints: Path,
    measure: Callable[[int], dict],
    peak_rate: float | None = None,
) -> dict | None:
    """Trains to the horizon, from the newest checkpoint if there is one.

    measure(step) gives {"bpb": ..., ...}; it is called before the first step, every eval_steps and at the end.
    peak_rate: tokens/s at the hardware's peak, for MFU. Returns minutes, tokens, tokens_per_second, the first and last
    measure and what became of the text; None where SIGTERM ended it, after a checkpoint.

    Raises:
        RecipeError: no finite loss and gradient for max_nonfinite_steps steps in a row; a text source that died.
    """
    model, optimizer = accelerator.prepare(model, optimizer)
    base_lrs = [group["lr"] for group in optimizer.param_groups]  # a checkpoint's are those of its step
    state = {"step": 0, "seconds": 0.0, "nonfinite": 0, "before": None}
    if newest := newest_checkpoint(checkpoints):
        state = load_checkpoint(accelerator, loader, newest)
        console.progress(f"resumed from step {state['step']:,}")
    else:
        state["before"] = measure(0)

    def save() -> None:
        state["seconds"] = time.perf_counter() - started
        with speed.paused():
            save_checkpoint(accelerator, loader, state, checkpoints, config.save_total_limit)

    speed = Speedometer(horizon.steps, state["step"], config.logging_steps, peak_rate)
    started = time.perf_counter() - state["seconds"]
    saved, bad = time.monotonic(), 0
    model.train()
    with sigterm() as asked:

        def wishes() -> tuple[bool, bool]:
            """To stop, and to save."""
            return asked.is_set(), config.save_minutes > 0 and time.monotonic() - saved > 60 * config.save_minutes

        while (step := state["step"]) < horizon.steps:
            factor = lr_factor(step, horizon.steps, config.warmup_steps, config.warmdown_ratio)
            for group, base in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = base * factor
                if group["kind"] == "muon":
                    group["momentum"] = muon_momentum(step)

            try:
                loss, norm, stopped, minutes_up = train_step(
                    accelerator, model, optimizer, loader, horizon.accumulation, config.max_grad_norm, wishes
                )
            except ConnectionError as error:
                raise RecipeError(f"{error}: the same command goes on from {last_good(checkpoints)}") from error
            state["step"] = step = step + 1
            speed_now = speed.step(step, horizon.batch_tokens, loss=loss, lr_factor=factor, **loader.past_one_epoch())
            accelerator.log({"loss": loss, "grad_norm": norm, "lr_factor": factor} | speed_now, step=step)

            bad = 0 if math.isfinite(loss) and math.isfinite(norm) else bad + 1
            if bad:
                state["nonfinite"] += 1
                console.progress(f"step {step:,}: loss {loss}, gradient norm {norm}: not applied ({bad} in a row)")
            if bad == config.max_nonfinite_steps:
                raise RecipeError(
                    f"max_nonfinite_steps={bad} steps in a row had no finite loss and gradient, at step {step:,} loss "
                    f"{loss} and gradient norm {norm}. The last good checkpoint is {last_good(checkpoints)}; lower "
                    "learning rates need a fresh start: --from pretrain"
                )
            if step == horizon.steps:
                break
            if step % config.eval_steps == 0:
                with speed.paused():
                    accelerator.log(measure(step), step=step)
            if stopped or (not bad and (minutes_up or step % config.save_steps == 0)):
                save()
                saved = time.monotonic()
            if stopped:
                console.progress(f"SIGTERM: stopped after step {step:,} with a checkpoint; the same command goes on")
                return None

    after = measure(step)
    accelerator.log(after, step=step)
    seconds = time.perf_counter() - started
    shares = loader.shares()
    waited = loader.seconds / speed.seconds if speed.seconds else 0.0
    epochs = f"{shares['epochs']:.2f} epochs" if shares["epochs"] else "no end in sight"
    console.progress(
        f"text: {epochs}; {shares['aligned']:.1%} of the rows begin with a document, {shares['continued']:.1%} of the "
        f"tokens stand apart from their document's beginning, none dropped or padded; {loader.place['empty']:,} empty "
        f"documents; {waited:.2%} of the time waiting for it"
    )
    return {
        "minutes": seconds / 60,
        "tokens": horizon.tokens,
        "tokens_per_second": speed.mean,
        "mfu": speed.mfu(speed.mean),
        "before": state["before"],
        "after": after,
        "nonfinite_steps": state["nonfinite"],
        "loader_share": waited,
        "empty_documents": loader.place["empty"],
        **shares,
    }


def train_step(
    accelerator, model, optimizer, loader, accumulation: int, max_grad_norm: float, wishes: Callable = tuple
) -> list[float]:
    """One update over `accumulation` passes; gradients meet between processes in the last one only.

    Not applied where loss or gradient is not finite. Returns the mean loss, the gradient's norm, and for each wish
    whether any process has it: the same on all, so that they decide alike.
    """
    total = torch.zeros((), device=accelerator.device)
    for i in range(accumulation):
        ids = next(loader).to(accelerator.device)
        with accelerator.no_sync(model) if i < accumulation - 1 else nullcontext():
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss / accumulation
            accelerator.backward(loss)
        total += loss.detach()
    norm = accelerator.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # under FSDP2
    mine = torch.stack([total, norm.to(total), *torch.tensor(wishes()).to(total)])
    loss, norm, *wished = accelerator.reduce(mine, "mean").tolist()
    if math.isfinite(loss) and math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return [loss, norm, *wished]


@contextmanager
def sigterm():
    """An event that SIGTERM sets, instead of ending the process."""
    event = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


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

    With another number of processes than wrote it, what waited there is dealt out, and the rest of the text divided.
    """
    state = json.loads((checkpoint / "progress.json").read_text())
    accelerator.load_state(str(checkpoint))
    before, now = state.pop("num_processes"), accelerator.num_processes
    if before == now:
        loader.load_state_dict(json.loads((checkpoint / f"loader-{accelerator.process_index}.json").read_text()))
    else:
        console.progress(f"written by {before} process(es), now {now}: the text is divided among them from here on")
        loaders = [json.loads((checkpoint / f"loader-{i}.json").read_text()) for i in range(before)]
        loader.load_state_dict(dealt(loaders, accelerator.process_index, now))
    return state


def newest_checkpoint(checkpoints: Path) -> Path | None:
    return max(checkpoints.glob("step-*"), default=None)


def last_good(checkpoints: Path) -> Path | str:
    return newest_checkpoint(checkpoints) or "the beginning: there is no checkpoint yet"
