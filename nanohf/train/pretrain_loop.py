"""The pretraining loop. Its numbers come from the horizon, what is measured on the way from the stage."""

import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from nanohf import console
from nanohf.data.packing import PackedLoader
from nanohf.errors import RecipeError
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.schedule import lr_factor, muon_momentum
from nanohf.recipe.schemas import PretrainConfig
from nanohf.runs.checkpoint_files import last_good
from nanohf.train.pretrain_checkpoints import load_checkpoint, save_checkpoint
from nanohf.train.pretrain_horizon import Horizon
from nanohf.train.progress import Speedometer
from nanohf.train.resuming import chosen_checkpoint


def build_model(config: PretrainConfig, tokenizer) -> NanoHFForCausalLM:
    """The recipe's model with its first random weights."""
    chosen = {"num_attention_heads": config.num_attention_heads} if config.num_attention_heads else {}
    return NanoHFForCausalLM(
        NanoHFConfig.from_depth(
            config.depth,
            vocab_size=len(tokenizer),
            preset=config.preset,
            max_position_embeddings=config.max_length,  # the longest row it is going to see
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **chosen,
        )
    )


def pretrain(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: PackedLoader,
    horizon: Horizon,
    config: PretrainConfig,
    checkpoints: Path,
    measure: Callable[[int], dict],
    peak_rate: float | None = None,
    sources: dict | None = None,
) -> dict | None:
    """Trains to the horizon, from the newest whole checkpoint if there is one.

    measure(step) gives {"bpb": ..., ...}; it is called before the first step, every eval_steps and at the end.
    peak_rate: tokens/s at the hardware's peak, for MFU. sources: what the data is like, for the checkpoints (see
    nanohf.data.source_state). Returns minutes, tokens, tokens_per_second, the first and last measure and what became of
    the text; None where SIGTERM ended it, after a checkpoint.

    Raises:
        RecipeError: no finite loss and gradient for max_nonfinite_steps steps in a row; a weight that is not finite
            where a checkpoint is due; only damaged checkpoints; a text source that died.
    """
    with no_wrapped_forward(accelerator):
        model, optimizer = accelerator.prepare(model, optimizer)
    base_lrs = [group["lr"] for group in optimizer.param_groups]  # a checkpoint's are those of its step
    position = Position(sources=sources or {})
    if newest := chosen_checkpoint(checkpoints):
        written = load_checkpoint(accelerator, loader, newest)
        position = Position(**{name: written[name] for name in vars(position)})
        console.progress(f"resumed from step {position.step:,}")
    else:
        position.before = measure(0)
        position.validation.append([0, position.before["bpb"]])
    loop = Pretraining(accelerator, model, optimizer, loader, horizon, config, checkpoints, measure, base_lrs, position)
    loop.speed = Speedometer(horizon.steps, position.step, config.logging_steps, peak_rate)
    return loop.run()


@dataclass
class Position:
    """How far training is: what a checkpoint says in numbers."""

    step: int = 0
    tokens: int = 0  # read, over all processes
    seconds: float = 0.0
    nonfinite: int = 0  # steps that were not applied
    failed_in_a_row: int = 0  # of these, the last ones
    before: dict | None = None  # the measure before the first step
    sources: dict | None = None  # what the data was like when it began
    losses: list[list[float]] = field(default_factory=list)  # [step, loss], as often as it is logged
    validation: list[list[float]] = field(default_factory=list)  # [step, bits per byte]


class Step(NamedTuple):
    """What one update was like, the same on all processes."""

    loss: float  # mean over its rows
    norm: float  # of the gradient, before clipping
    stop: bool = False  # a process was told to stop
    save: bool = False  # a process has the time for a checkpoint

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.norm)


@dataclass
class Pretraining:
    """The loop over steps. Model and optimizer are accelerate's; base_lrs: the recipe's, one a parameter group."""

    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    loader: PackedLoader
    horizon: Horizon
    config: PretrainConfig
    checkpoints: Path
    measure: Callable[[int], dict]
    base_lrs: list[float]
    position: Position
    speed: Speedometer | None = None

    def run(self) -> dict | None:
        if epoch := self.loader.epoch_tokens():
            console.progress(
                f"text: about {epoch:,} tokens per epoch: the horizon is {self.horizon.tokens / epoch:.2f} epochs"
            )
        self.started = time.perf_counter() - self.position.seconds
        self.saved = time.monotonic()
        self.model.train()
        with sigterm() as asked:
            while self.position.step < self.horizon.steps:
                step = self.one_step(asked)
                self.log(step)
                self.count_failures(step)
                if self.position.step == self.horizon.steps:
                    break
                self.look_and_save(step)
                if step.stop:
                    done = f"stopped after step {self.position.step:,} with a checkpoint"
                    console.progress(f"SIGTERM: {done}; the same command resumes")
                    return None
        return self.result()

    def one_step(self, asked: threading.Event) -> Step:
        self.factor = self.follow_schedule(self.position.step)
        minutes = self.config.save_minutes

        def requests() -> tuple[bool, bool]:
            return asked.is_set(), minutes > 0 and time.monotonic() - self.saved > 60 * minutes

        try:
            step = train_step(
                self.accelerator, self.model, self.optimizer, self.loader, self.horizon.accumulation,
                self.config.max_grad_norm, requests,
            )  # fmt: skip
        except ConnectionError as error:
            raise RecipeError(f"{error}: the same command resumes from {last_good(self.checkpoints)}") from error
        self.position.step += 1
        self.position.tokens += self.horizon.batch_tokens
        return step

    def follow_schedule(self, step: int) -> float:
        """Sets learning rates and momentum; returns the rates' factor."""
        factor = lr_factor(step, self.horizon.steps, self.config.warmup_steps, self.config.warmdown_ratio)
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor
            if group["kind"] == "muon":
                group["momentum"] = muon_momentum(step)
        return factor

    def log(self, step: Step) -> None:
        number = self.position.step
        epochs = self.loader.epochs() or 0.0
        past_one = {"epoch": epochs} if epochs > 1 else {}
        shown = {"loss": step.loss, "lr_factor": self.factor} | past_one
        speed = self.speed.step(number, self.horizon.batch_tokens, force=False, **shown)
        values = {"loss": step.loss, "grad_norm": step.norm, "lr_factor": self.factor}
        self.accelerator.log(values | speed, step=number)
        if speed and step.finite:
            self.position.losses.append([number, step.loss])

    def count_failures(self, step: Step) -> None:
        position = self.position
        if step.finite:
            position.failed_in_a_row = 0
            return
        position.failed_in_a_row += 1
        position.nonfinite += 1
        seen = f"loss {step.loss}, gradient norm {step.norm}"
        console.warning(f"step {position.step:,}: {seen}: not applied ({position.failed_in_a_row} in a row)")
        if position.failed_in_a_row == self.config.max_nonfinite_steps:
            raise RecipeError(
                f"max_nonfinite_steps={position.failed_in_a_row} steps in a row had no finite loss and gradient, at "
                f"step {position.step:,} loss {step.loss} and gradient norm {step.norm}. The last good checkpoint is "
                f"{last_good(self.checkpoints)}; lower learning rates need a fresh start: --from pretrain"
            )

    def look_and_save(self, step: Step) -> None:
        """Measures and saves, where it is time to."""
        number = self.position.step
        if number % self.config.eval_steps == 0:
            with self.speed.paused():
                self.look()
        if step.stop or (step.finite and (step.save or number % self.config.save_steps == 0)):
            self.position.seconds = time.perf_counter() - self.started
            with self.speed.paused():
                state = asdict(self.position) | {"horizon": asdict(self.horizon)}
                save_checkpoint(self.accelerator, self.loader, state, self.checkpoints, self.config.save_total_limit)
            self.saved = time.monotonic()

    def look(self) -> dict:
        """Measures, logs and keeps it for the curve."""
        step = self.position.step
        measured = self.measure(step)
        self.accelerator.log(measured, step=step)
        self.position.validation.append([step, measured["bpb"]])
        return measured

    def result(self) -> dict:
        after = self.look()
        seconds = time.perf_counter() - self.started
        shares, empty = self.loader.shares(), self.loader.place["empty"]
        waited = self.loader.seconds / self.speed.seconds if self.speed.seconds else 0.0
        epochs = self.loader.epochs()
        console.progress(
            f"text: {f'{epochs:.2f} epochs, ' if epochs else ''}{shares['aligned']:.2%} of the rows begin with a "
            f"document, {shares['continued']:.2%} of the tokens stand apart from its beginning, nothing is dropped or "
            f"padded; {empty:,} empty documents; {waited:.2%} of the time waiting for it"
        )
        return {
            "minutes": seconds / 60,
            "tokens": self.position.tokens,
            "tokens_per_second": self.speed.mean,
            "mfu": self.speed.mfu(self.speed.mean),
            "before": self.position.before,
            "after": after,
            "nonfinite_steps": self.position.nonfinite,
            "loader_share": waited,
            "empty_documents": empty,
            "epochs": epochs,
            "losses": self.position.losses,
            "validation": self.position.validation,
            **shares,
        }


def train_step(
    accelerator, model, optimizer, loader, accumulation: int, max_grad_norm: float, requests: Callable = tuple
) -> Step:
    """One update over `accumulation` micro-batches; gradients meet between processes in the last one only.

    Not applied where loss or gradient is not finite. requests(): whether this process is told to stop, and whether it
    has the time for a checkpoint.
    """
    total = torch.zeros((), device=accelerator.device)
    for i in range(accumulation):
        ids = next(loader).to(accelerator.device)
        with accelerator.no_sync(model) if i < accumulation - 1 else nullcontext():
            with accelerator.autocast():
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss / accumulation
            accelerator.backward(loss)
        total += loss.detach()
    norm = accelerator.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # under FSDP2
    mine = torch.stack([total, norm.to(total), *torch.tensor(requests()).to(total)])
    loss, norm, *requested = accelerator.reduce(mine, "mean").tolist()
    step = Step(loss, norm, *map(bool, requested))
    if step.finite:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return step


@contextmanager
def no_wrapped_forward(accelerator: Accelerator):
    """What is prepared within keeps its forward. Accelerate would copy all logits to fp32 for nobody.

    They are its largest tensor: at 32 rows of 2,048 tokens and a vocabulary of 65,536 the copy takes 17 GB.
    """
    autocast, accelerator.native_amp = accelerator.native_amp, False
    yield
    accelerator.native_amp = autocast


@contextmanager
def sigterm():
    """An event that SIGTERM sets, instead of ending the process."""
    event = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
