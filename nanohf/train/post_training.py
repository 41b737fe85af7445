"""What SFT and GRPO share beyond TRL's trainers: their stage fields, our optimizer, progress lines, resuming."""

import json
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState
from transformers.trainer import OPTIMIZER_NAME

from nanohf import console
from nanohf.hardware.device import peak_memory, refuse_fsdp, use_onednn
from nanohf.optim.groups import build_optimizer
from nanohf.recipe.post_training_schemas import RATES, PostTrainingConfig
from nanohf.train.progress import Speedometer

TRAINER_STATE = "trainer_state.json"
SHOWN = ("loss", "reward", "groups/all_wrong", "groups/all_right", "entropy", "mean_token_accuracy")  # in a step's line


def make_optimizer(stage: PostTrainingConfig, model) -> tuple[torch.optim.Optimizer | None, None]:
    """For a trainer's `optimizers`: ours over the trainable parameters, or none, which leaves it to TRL."""
    if stage.optimizer == "trl":
        return None, None
    return build_optimizer(model, **{name: getattr(stage, name) for name in RATES}), None


def train(trainer: Trainer) -> dict:
    """Runs a trainer to its end, from its newest complete checkpoint if there is one.

    Returns minutes, tokens and tokens/s of this process's work: a resumed stage counts from where it went on.
    """
    use_onednn()  # TRL keeps the head in fp32
    newest = newest_checkpoint(Path(trainer.args.output_dir))
    started = time.perf_counter()
    if newest and (state := TrainerState.load_from_json(str(newest / TRAINER_STATE))).global_step >= state.max_steps:
        console.progress(f"trained already: {newest.name}")  # resuming a finished training would take one step more
        trainer._load_from_checkpoint(str(newest))
        if trainer.optimizer and (kept := newest / OPTIMIZER_NAME).is_file():
            trainer.optimizer.load_state_dict(torch.load(kept, map_location="cpu", weights_only=True))
        trainer.state = state
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
    }


def newest_checkpoint(output_dir: Path) -> Path | None:
    """The newest of a trainer's checkpoints that was written to its end (trainer_state.json comes last)."""
    for folder in sorted(output_dir.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True):
        try:
            json.loads((folder / TRAINER_STATE).read_text())
        except (OSError, ValueError):
            continue
        return folder
    return None


class Progress(TrainerCallback):
    """Our progress lines in place of the trainer's dictionaries. Its logs' num_tokens counts the tokens seen so far."""

    speed: Speedometer | None = None
    seen = 0

    @classmethod
    def attach(cls, trainer: Trainer) -> "Progress":
        refuse_fsdp(trainer.accelerator)
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


def figures_of(trainer: Trainer) -> dict:
    """Of a stage's record, what every trained model has."""
    config = trainer.model.config
    return {
        "depth": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
        "parameters": trainer.model.num_parameters(),
        "device": trainer.accelerator.device.type,
        "world_size": trainer.accelerator.num_processes,
        "peak_memory_bytes": peak_memory(trainer.accelerator.device.type),
    }


def save(trainer: Trainer, folder: Path) -> None:
    """The model, its code, generation config and tokenizer."""
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
