"""What SFT and GRPO share beyond TRL's trainers: their stage fields, our optimizer, progress lines, resuming."""

import copy
import json
import time
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState
from transformers.trainer import OPTIMIZER_NAME

from nanohf import console
from nanohf.data.conversations import Source
from nanohf.data.source_state import source_state
from nanohf.errors import RecipeError
from nanohf.hardware.device import peak_memory, refuse_fsdp, use_onednn
from nanohf.optim.groups import build_optimizer
from nanohf.recipe.schemas import RunFolder, too_small
from nanohf.runs.checkpoint_files import last_good
from nanohf.train.finite_weights import refuse_nonfinite
from nanohf.train.progress import Speedometer
from nanohf.train.resuming import Batch, chosen_checkpoint, warn_of_changed_data
from nanohf.train.trainer_guards import NOTE, StageState

# Of GRPOConfig, what only transformers' generate or vLLM would heed.
NOT_THE_ENGINES = (
    "top_p", "min_p", "repetition_penalty", "generation_kwargs", "chat_template_kwargs", "cache_implementation",
)  # fmt: skip
RATES = ("lr_scale", "matrix_lr", "embedding_lr", "head_lr")
LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
TRAINER_STATE = "trainer_state.json"
SHOWN = ("loss", "reward", "groups/all_wrong", "groups/all_right", "entropy", "mean_token_accuracy")  # in a step's line


@dataclass
class PostTraining(RunFolder):
    """Beside TRL's own fields, which keep their names."""

    model_name_or_path: str = field(default="pretrain", metadata={"help": "a stage of the run, a folder or a Hub id"})
    optimizer: str = field(default="muon", metadata={"help": "muon: ours; trl: what optim and learning_rate say"})
    lr_scale: float = field(default=1.0, metadata={"help": "muon only: factor on the three learning rates below"})
    matrix_lr: float = field(default=0.02, metadata={"help": "Muon's learning rate in pretraining"})
    embedding_lr: float = field(default=0.2, metadata={"help": "the embedding's, at width 768"})
    head_lr: float = field(default=0.004, metadata={"help": "the head's, at width 768"})
    max_nonfinite_steps: int = field(
        default=10, metadata={"help": "end after so many steps in a row without a finite loss and gradient"}
    )
    use_peft: bool = field(default=False, metadata={"help": "train LoRA adapters; the result is merged, a plain model"})
    lora_r: int = field(default=16, metadata={"help": "rank of the adapters"})
    lora_alpha: int = field(default=32, metadata={"help": "adapters count alpha / r times"})
    lora_dropout: float = field(default=0.0, metadata={"help": "before the adapters"})
    lora_target_modules: list[str] = field(default_factory=lambda: ["all-linear"], metadata={"help": "what to adapt"})

    def __post_init__(self):
        problems = too_small(
            self, max_nonfinite_steps=1, lora_r=1, lora_alpha=1, lr_scale=0, matrix_lr=0, embedding_lr=0, head_lr=0
        )
        if self.optimizer not in ("muon", "trl"):
            problems.append(f"optimizer={self.optimizer!r} must be muon or trl")
        if not 0 <= self.lora_dropout < 1:
            problems.append(f"lora_dropout={self.lora_dropout} must be from 0 to below 1")
        if self.optimizer == "trl":
            problems += self.changed(RATES, "with optimizer: trl, which heeds learning_rate")
        if not self.use_peft:
            problems += self.changed(LORA, "without use_peft: true")
        if problems:
            raise RecipeError(problems)

    def changed(self, names: tuple[str, ...], where: str) -> list[str]:
        """A problem for each of the fields that has not its default."""
        defaults = {f.name: f.default_factory() if f.default is MISSING else f.default for f in fields(self)}
        return [
            f"{name}={value} does nothing {where}; leave it out (default: {defaults[name]})"
            for name in names
            if (value := getattr(self, name)) != defaults[name]
        ]


@dataclass
class ChatStage(PostTraining):
    """Fields of midtrain.yaml and sft.yaml."""

    stage: str = field(default="sft", metadata={"help": "midtrain or sft: the folder the result goes to"})
    mixture: list[dict] = field(default_factory=list, metadata={"help": "sources: see data.conversations.Source"})
    eval_mixture: list[dict] = field(default_factory=list, metadata={"help": "the same, measured before and after"})
    carry_optimizer: bool = field(
        default=False, metadata={"help": "begin with the moments that model_name_or_path ended with and kept"}
    )
    keep_optimizer: bool = field(default=False, metadata={"help": "beside the result, for the next stage to carry on"})

    def __post_init__(self):
        super().__post_init__()
        if self.stage not in ("midtrain", "sft"):
            raise RecipeError(f"stage={self.stage!r} must be midtrain or sft")
        empty = [name for name in ("mixture", "eval_mixture") if not getattr(self, name)]
        problems = [f"{name} is empty; list at least one source" for name in empty]
        for name in ("carry_optimizer", "keep_optimizer"):
            if getattr(self, name) and (self.use_peft or self.optimizer != "muon"):
                problems.append(f"{name} is for our optimizer over the whole model; leave out use_peft and optimizer")
        known = [f.name for f in fields(Source)]
        for name in ("mixture", "eval_mixture"):
            for i, entry in enumerate(getattr(self, name)):
                try:
                    getattr(self, name)[i] = Source(**entry)
                except (TypeError, ValueError) as error:
                    problems.append(f"{name}[{i}] = {entry}: {error}. Keys: {', '.join(known)}.")
        if not problems:
            problems = self.wrong_documents()
        if problems:
            raise RecipeError(problems)

    def wrong_documents(self) -> list[str]:
        problems = []
        for name in ("mixture", "eval_mixture"):
            sources = getattr(self, name)
            if all(source.is_document for source in sources):
                problems.append(f"{name} has documents only; add at least one source of conversations")
            if (shares := sum(source.share or 0 for source in sources)) >= 1:
                problems.append(f"{name}: the shares of its documents add up to {shares:g}; leave room below 1")
        if any(source.share for source in self.eval_mixture):
            problems.append("eval_mixture: a share has no meaning there; give the documents' number as rows")
        return problems


@dataclass
class ProblemStage(PostTraining):
    """Fields of grpo.yaml."""

    dataset: str = field(default="builtin", metadata={"help": "word problems: builtin, a folder or a Hub id"})
    dataset_config: str | None = field(default=None, metadata={"help": "its configuration name"})
    dataset_rows: int | None = field(default=None, metadata={"help": "only the first so many"})
    eval_problems: int = field(default=400, metadata={"help": "test problems for pass@k"})
    eval_generations: int = field(default=8, metadata={"help": "samples a problem for pass@k, k up to this"})
    eval_every: int = field(default=60, metadata={"help": "pass@k every so many steps, before and after besides"})
    skip_settled: float = field(
        default=0.0, metadata={"help": "chance to pass over a problem whose last group was all right or all wrong"}
    )

    def __post_init__(self):
        super().__post_init__()
        problems = too_small(self, eval_problems=1, eval_generations=1, eval_every=1)
        if not 0 <= self.skip_settled < 1:
            problems.append(f"skip_settled={self.skip_settled} must be from 0 to below 1")
        if problems:
            raise RecipeError(problems)

    def wrong_with(self, args) -> list[str]:
        """What does not fit together with the GRPOConfig."""
        problems = too_small(args, top_k=0)
        a_generation = args.steps_per_generation * args.num_iterations  # passes
        if args.save_steps * args.gradient_accumulation_steps % a_generation:
            steps = a_generation // args.gradient_accumulation_steps
            problems.append(
                f"save_steps={args.save_steps} must be a multiple of {steps}, the steps that one generation serves, "
                f"or a resumed run does not go on as it was. Try {max(1, round(args.save_steps / steps)) * steps}."
            )
        if self.skip_settled and args.dataloader_num_workers:
            problems.append(
                f"dataloader_num_workers={args.dataloader_num_workers} draws problems before the rewards are "
                "known that skip_settled needs. Set it to 0."
            )
        defaults = {f.name: f.default for f in fields(args)}
        unheard = [name for name in NOT_THE_ENGINES if getattr(args, name) != defaults[name]]
        if unheard and not args.use_vllm:
            problems.append(f"{', '.join(unheard)}: the engine heeds temperature and top_k only; leave it out")
        if args.use_vllm and not torch.cuda.is_available():
            problems.append("use_vllm needs a CUDA GPU; without it the engine of nanohf generates, on any device")
        elif args.use_vllm and find_spec("vllm") is None:
            problems.append("use_vllm needs vLLM: pip install 'trl[vllm]'")
        return problems


def make_optimizer(stage: PostTraining, model) -> tuple[torch.optim.Optimizer | None, None]:
    """For a trainer's `optimizers`: ours over the trainable parameters, or none, which leaves it to TRL."""
    if stage.optimizer == "trl":
        return None, None
    return build_optimizer(model, **{name: getattr(stage, name) for name in RATES}), None


def without_push(args):
    """The same training arguments with pushing off: a stage is pushed once, finished, with its card, by nanohf.hub."""
    args = copy.copy(args)
    args.push_to_hub = False
    return args


def resumed(stage: PostTraining, args, datasets: list[str]) -> tuple[Path | None, StageState]:
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


def train(trainer: Trainer, newest: Path | None) -> dict:
    """Runs a guarded trainer to its end, from the checkpoint if there is one.

    Returns minutes, tokens and tokens/s of this process's work: a resumed stage counts from where it resumed.
    """
    use_onednn()  # TRL keeps the head in fp32
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


def record_of(trainer: Trainer) -> dict:
    """What the ledger says of every trained model."""
    config = trainer.model.config
    return {
        "depth": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
        "parameters": trainer.model.num_parameters(),
        "device": trainer.accelerator.device.type,
        "num_processes": trainer.accelerator.num_processes,
        "peak_memory": peak_memory(trainer.accelerator.device.type),
    }


def save(trainer: Trainer, folder: Path) -> None:
    """The model, its code, generation config and tokenizer.

    Raises:
        RecipeError: a weight is not finite.
    """
    refuse_nonfinite(trainer.model.named_parameters(), folder.name, last_good(Path(trainer.args.output_dir)))
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
