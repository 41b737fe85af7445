"""What SFT and GRPO share beyond TRL's trainers: their stage fields, our optimizer, progress lines, resuming."""

import json
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState
from transformers.integrations import TensorBoardCallback
from transformers.trainer import OPTIMIZER_NAME

from nanohf import console
from nanohf.data.source_state import source_state
from nanohf.hardware.device import device_name, peak_memory, use_onednn
from nanohf.optim.groups import build_optimizer
from nanohf.optim.muon import MuonAdamW
from nanohf.recipe.post_training_schemas import RATES, ChatConfig, PostTrainingConfig
from nanohf.runs.checkpoint_files import last_good, numbered
from nanohf.scaling.horizon import best_lr_scale
from nanohf.train.finite_weights import refuse_nonfinite
from nanohf.train.progress import Speedometer
from nanohf.train.resuming import Batch, chosen_checkpoint, warn_of_changed_data
from nanohf.train.trainer_guards import NOTE, GuardedTrainer, StageState

TRAINER_STATE = "trainer_state.json"
SHOWN = ("loss", "reward", "groups/all_wrong", "groups/all_right", "entropy", "mean_token_accuracy")  # in a step's line


def make_optimizer(stage: PostTrainingConfig, model, lr_scale: float | None) -> tuple[MuonAdamW | None, None]:
    """For a trainer's `optimizers`: ours over the trainable parameters, or none, which leaves it to TRL."""
    if stage.optimizer == "trl":
        return None, None
    rates = {name: getattr(stage, name) for name in RATES} | {"lr_scale": lr_scale}
    return build_optimizer(model, **rates), None


def lr_scale_of(stage: ChatConfig, args, tokens: int, rows: int) -> float:
    """The recipe's factor on the learning rates, or pretraining's rule for so many tokens in so many rows."""
    if stage.lr_scale is not None:
        return stage.lr_scale
    batch = stage.batch_tokens or round((stage.conversations_per_step or 1) * tokens / rows)
    horizon = round(args.max_steps * batch if args.max_steps > 0 else args.num_train_epochs * tokens)
    scale = stage.lr_fraction * best_lr_scale(batch, horizon)
    of = f"{stage.lr_fraction:g} of " if stage.lr_fraction != 1 else ""
    console.progress(f"learning rates: x {scale:.3g} = {of}the rule for {batch:,} tokens per step, {horizon:,} in all")
    return scale


def resumed(stage: PostTrainingConfig, args, datasets: list[str]) -> tuple[Path | None, StageState]:
    """The newest whole checkpoint, if there is one, and the stage's state; batch and steps in `args` become its.

    Raises:
        RecipeError: the processes cannot share the checkpoint's batch; all checkpoints are damaged.
    """
    batch = Batch(args.world_size, args.per_device_train_batch_size, args.gradient_accumulation_steps)
    state = StageState(batch.as_dict(), source_state(datasets), stage.max_nonfinite_steps)
    state.generation_rows = getattr(args, "generation_batch_size", None) or 0
    newest = chosen_checkpoint(Path(args.output_dir))
    if newest is None:
        return None, state
    written = json.loads((newest / NOTE).read_text(encoding="utf-8"))
    warn_of_changed_data(written["sources"], state.sources)
    before = Batch(**written["batch"])
    batch = before.on(args.world_size, written["generation_rows"])
    batch.said(before)
    state = StageState(**written | {"batch": batch.as_dict(), "max_nonfinite_steps": stage.max_nonfinite_steps})
    args.per_device_train_batch_size, args.gradient_accumulation_steps = batch.rows, batch.accumulation
    args.max_steps = state.max_steps
    if state.generation_rows:
        args.generation_batch_size = state.generation_rows
        args.steps_per_generation = state.generation_rows // (batch.rows * batch.processes)
    return newest, state


def kept_batch(checkpoints: Path, processes: int) -> Batch | None:
    """The batch of an interrupted stage, as these processes share it; None where there is no checkpoint.

    Raises:
        RecipeError: they cannot share it evenly.
    """
    for folder in reversed(numbered(checkpoints)):
        try:
            written = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # damaged: an older one has as large a batch
        return Batch(**written["batch"]).on(processes, written["generation_rows"])
    return None


def train(trainer: GuardedTrainer, newest: Path | None) -> dict:
    """Runs a guarded trainer to its end, from the checkpoint if there is one.

    Returns minutes, tokens and tokens/s of this process's work: a resumed stage counts from where it resumed.
    """
    use_onednn(trainer.accelerator.device.type)  # TRL keeps the head in fp32
    started = time.perf_counter()
    if newest and (done := TrainerState.load_from_json(str(newest / TRAINER_STATE))).global_step >= done.max_steps:
        console.progress(f"trained already: {newest.name}")  # resuming a finished training would take one step more
        trainer._load_from_checkpoint(str(newest))
        if trainer.optimizer and (kept := newest / OPTIMIZER_NAME).is_file():
            trainer.optimizer.load_state_dict(torch.load(kept, map_location="cpu", weights_only=True))
        trainer.state = done
    else:
        if newest:
            console.progress(f"resumed from {newest.name}")
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    progress = next(c for c in trainer.callback_handler.callbacks if isinstance(c, Progress))
    return {
        "minutes": (time.perf_counter() - started) / 60,
        "tokens": progress.speed.tokens if progress.speed else 0,
        "tokens_per_second": progress.speed.mean if progress.speed else 0.0,
        "resumed": newest is not None,
        "nonfinite_steps": trainer.stage_state.nonfinite_steps,
    }


class Progress(TrainerCallback):
    """Our progress lines in place of the trainer's dictionaries. Its logs' num_tokens counts the tokens seen so far."""

    speed: Speedometer | None = None
    seen = 0

    @classmethod
    def attach(cls, trainer: Trainer) -> "Progress":
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(progress := cls())
        return progress

    def paused(self):
        """For an evaluation: its time is not training."""
        return self.speed.paused() if self.speed else nullcontext()

    def on_train_begin(self, args, state, control, **kwargs):
        self.speed = Speedometer(state.max_steps, state.global_step, max(1, int(args.logging_steps)))
        self.seen = int(state.num_input_tokens_seen)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not {"loss", "train_loss"} & logs.keys():  # train_loss: the last log, with the steps since the last loss
            return
        tokens = int(logs.get("num_tokens", self.seen))
        shown = {k: logs[k] for k in SHOWN if k in logs}
        self.speed.step(state.global_step, tokens - self.seen, force=True, **shown)
        self.seen = tokens


def keep_logs(trainer: Trainer, folder: Path) -> None:
    """TensorBoard's files in `folder`. By itself it writes among the checkpoints, which are removed in the end."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder)


def figures_of(trainer: GuardedTrainer) -> dict:
    """Of a stage's record, what every trained model has."""
    config = trainer.model.config
    return {
        "depth": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
        "parameters": trainer.model.num_parameters(),
        "device": trainer.accelerator.device.type,
        "device_name": device_name(trainer.accelerator.device),
        "world_size": trainer.accelerator.num_processes,
        "peak_memory_bytes": peak_memory(trainer.accelerator.device.type),
    }


def save(trainer: GuardedTrainer, folder: Path) -> None:
    """The model, its code, generation config and tokenizer.

    Raises:
        RecipeError: a weight is not finite.
    """
    refuse_nonfinite(trainer.model.named_parameters(), folder.name, last_good(trainer.folder))
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config.use_cache = True  # the trainer turned it off for itself; who generates wants it
    model.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
