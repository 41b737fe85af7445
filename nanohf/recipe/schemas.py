"""What recipes of our own stages may say: a key for each field, with its default and the values it takes.

Those of midtrain, sft and grpo are in `post_training_schemas`, beside TRL's own keys (`trl_keys`). No torch, no TRL.
"""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from nanohf.data.licences import wrong_licence
from nanohf.data.word_problem_source import WordProblemSource
from nanohf.errors import RecipeError
from nanohf.recipe.stage_names import MODEL_STAGES
from nanohf.scaling.horizon import TOKENS_PER_PARAMETER, Pretraining, pretraining
from nanohf.scaling.parameters import PRESETS, parameters
from nanohf.scaling.step_batch import StepBatch

TRACKERS = ("trackio", "tensorboard", "wandb", "mlflow")  # each the name of its package


def missing_trackers(report_to: str | list[str] | None) -> list[str]:
    """An error for each tracker that a recipe names and that is not installed."""
    names = [report_to] if isinstance(report_to, str) else report_to or []
    missing = [name for name in names if name in TRACKERS and find_spec(name) is None]
    return [f"report_to={name!r} is not installed: pip install {name}" for name in missing]


def too_small(config, **least: float) -> list[str]:
    given = {k: value for k in least if (value := getattr(config, k)) is not None}
    return [f"{k}={value} must be at least {least[k]}" for k, value in given.items() if value < least[k]]


def not_words(config, *names: str) -> list[str]:
    given = {k: getattr(config, k) for k in names}
    return [f"{k}={v} must be a list of words" for k, v in given.items() if not all(isinstance(w, str) for w in v)]


def wrong_licences(config) -> list[str]:
    return [e for key in ("license", "hub_license") for e in wrong_licence(key, getattr(config, key, None))]


def ladder(config) -> list[WordProblemSource]:
    """The word problems of grpo or evaluate: those listed, or the one dataset."""
    if config.word_problems:
        return config.word_problems
    return [WordProblemSource(config.dataset, config=config.dataset_config, rows=getattr(config, "dataset_rows", None))]


def ladder_errors(config) -> list[str]:
    errors = too_small(config, dataset_rows=1) if hasattr(config, "dataset_rows") else []
    if not config.word_problems:
        return errors
    given = [key for key in ("dataset_config", "dataset_rows", "license") if getattr(config, key, None) is not None]
    given = ["dataset"] * (config.dataset != "builtin") + given
    if given:
        errors.append(f"{', '.join(given)}: leave it out, word_problems lists the sources")
    labels = [source.label for source in config.word_problems]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        errors.append(f"word_problems has two sources called {', '.join(twice)}; give each a name of its own")
    return errors


WORD_PROBLEMS = {"help": "several sources instead of dataset: see data.word_problem_source"}
LICENSE = {"help": "the data's licence as the Hub spells it, such as cc-by-4.0, where its card does not say"}
HUB_LICENSE = {"help": "under which licence you publish the result; default: the strictest of its data's"}


@dataclass(frozen=True)
class TextSource:
    """Where documents come from. See `nanohf.data.sources.text_stream`."""

    dataset: str = field(default="builtin", metadata={"help": "builtin, a folder, or a Hub id"})
    dataset_config: str | None = field(default=None, metadata={"help": "the dataset's configuration name"})
    text_column: str = field(default="text", metadata={"help": "the column that holds the document"})
    split: str = field(default="train", metadata={"help": "the split to train on, where it is not called train"})
    license: str | None = field(default=None, metadata=LICENSE)


@dataclass(frozen=True)
class Publish:
    """Whether and where a stage's result is pushed. SFT and GRPO have all but the licence among TRL's own fields."""

    push_to_hub: bool = field(default=False, metadata={"help": "nanohf run pushes the result to the Hub"})
    hub_model_id: str | None = field(default=None, metadata={"help": "USER/NAME; default: the run's and stage's name"})
    hub_private_repo: bool | None = field(default=None, metadata={"help": "make a new repo private"})
    hub_license: str | None = field(default=None, metadata=HUB_LICENSE)


@dataclass(frozen=True)
class RunFolder:
    run_dir: str = field(default="runs/demo", metadata={"help": "the run's folder; the stage writes run_dir/STAGE"})


@dataclass(frozen=True)
class TokenizerConfig(Publish, TextSource, RunFolder):
    vocab_size: int = field(
        default=65536, metadata={"help": "a multiple of 64, at least 320: 256 bytes and 9 special tokens"}
    )
    max_chars: int = field(default=2_000_000_000, metadata={"help": "characters of text to train on"})
    doc_cap: int = field(default=10_000, metadata={"help": "characters of a document that count"})

    def __post_init__(self):
        errors = wrong_licences(self)
        if self.vocab_size < 320 or self.vocab_size % 64:
            errors.append(
                f"vocab_size={self.vocab_size:,} must be a multiple of 64 and hold 256 bytes + 9 special tokens. "
                f"Try {max(320, round(self.vocab_size / 64) * 64):,}."
            )
        if self.max_chars < 1 or self.doc_cap < 1:
            errors.append(f"max_chars={self.max_chars} and doc_cap={self.doc_cap} must be at least 1")
        if errors:
            raise RecipeError(errors)


@dataclass(frozen=True)
class PretrainConfig(Publish, TextSource, RunFolder):
    tokenizer: str = field(default="tokenizer", metadata={"help": "a stage of the run, a folder or a Hub id"})
    depth: int = field(default=20, metadata={"help": "the dial: layers; hidden_size is 64 times it"})
    preset: str = field(
        default="classic", metadata={"help": "classic (nanochat of 2025-11) or modern (some of 2026-07)"}
    )
    num_attention_heads: int | None = field(default=None, metadata={"help": "default: one for each 128 channels"})
    max_length: int = field(default=2048, metadata={"help": "tokens of a row"})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "rows of a micro-batch"})
    batch_tokens: int | None = field(
        default=None, metadata={"help": "tokens of a step, over all processes; default: by the horizon"}
    )
    tokens_per_parameter: float = field(
        default=TOKENS_PER_PARAMETER, metadata={"help": "the horizon, unless max_steps is set"}
    )
    tokens_per_scaling_parameter: float | None = field(
        default=None, metadata={"help": "the horizon by block matrices and lm_head instead (nanochat 2026-07: 12)"}
    )
    max_steps: int = field(default=-1, metadata={"help": "stop after so many steps; -1: the horizon"})
    lr_scale: float | None = field(
        default=None, metadata={"help": "factor on the rates below; default: by batch_tokens and the horizon"}
    )
    matrix_lr: float = field(default=0.02, metadata={"help": "Muon's learning rate"})
    embedding_lr: float = field(default=0.2, metadata={"help": "AdamW's, at width 768"})
    lm_head_lr: float = field(default=0.004, metadata={"help": "AdamW's, at width 768"})
    weight_decay: float = field(default=0.0, metadata={"help": "of the matrices"})
    normuon: float = field(default=0.9, metadata={"help": "beta2 of NorMuon's running mean square; 0: plain Muon"})
    warmup_steps: int = field(default=0, metadata={"help": "linear, from 0"})
    warmdown_ratio: float = field(default=0.5, metadata={"help": "share of the steps over which the rate falls to 0"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "clip the gradient's norm; 0: never"})
    eval_steps: int = field(default=250, metadata={"help": "bits per byte and samples every so many steps"})
    eval_tokens: int = field(default=1_048_576, metadata={"help": "validation tokens"})
    save_steps: int = field(default=1000, metadata={"help": "checkpoint every so many steps"})
    save_minutes: float = field(default=15.0, metadata={"help": "and every so many minutes; 0: by steps only"})
    save_total_limit: int = field(default=2, metadata={"help": "checkpoints to keep"})
    max_nonfinite_steps: int = field(
        default=10, metadata={"help": "end after so many steps in a row without a finite loss and gradient"}
    )
    logging_steps: int = field(default=10, metadata={"help": "a line every so many steps"})
    mixed_precision: str = field(
        default="auto", metadata={"help": "auto, no or bf16; auto: bf16 where the hardware multiplies it"}
    )
    torch_compile: bool = field(default=True, metadata={"help": "compile the model: half a minute, then 1.3x as fast"})
    keep_optimizer: bool = field(default=False, metadata={"help": "beside the result, for midtrain's carry_optimizer"})
    report_to: str = field(default="none", metadata={"help": "none, trackio, tensorboard or wandb"})
    trackio_space_id: str | None = field(
        default=None, metadata={"help": "USER/SPACE, where trackio shows the curves; the card links it"}
    )
    seed: int = field(default=42, metadata={"help": "of the initial weights and of the order of the text"})

    def __post_init__(self):
        errors = too_small(
            self, depth=1, max_length=2, per_device_train_batch_size=1, batch_tokens=1,
            eval_steps=1, eval_tokens=1, save_steps=1, save_minutes=0, save_total_limit=1, logging_steps=1,
            max_nonfinite_steps=1, matrix_lr=0, embedding_lr=0, lm_head_lr=0, weight_decay=0, normuon=0, warmup_steps=0,
            max_grad_norm=0, seed=0,
        )  # fmt: skip
        errors += wrong_licences(self)
        if self.max_steps != -1 and self.max_steps < 1:
            errors.append(f"max_steps={self.max_steps} must be at least 1, or -1 for the horizon")
        for key in ("tokens_per_parameter", "tokens_per_scaling_parameter", "lr_scale"):
            if (value := getattr(self, key)) is not None and not value > 0:
                errors.append(f"{key}={value} must be above 0")
        if self.preset not in PRESETS:
            errors.append(f"preset={self.preset!r} must be {' or '.join(PRESETS)}")
        heads, width = self.num_attention_heads, 64 * self.depth
        if heads is not None and (heads < 1 or width % (2 * heads)):
            errors.append(f"num_attention_heads={heads} must divide hidden_size={width:,} into an even head size")
        if self.normuon >= 1:
            errors.append(f"normuon={self.normuon} must be from 0 to below 1")
        if not 0 <= self.warmdown_ratio <= 1:
            errors.append(f"warmdown_ratio={self.warmdown_ratio} must be between 0 and 1")
        if self.mixed_precision not in ("auto", "no", "bf16"):
            errors.append(f"mixed_precision={self.mixed_precision!r} must be auto, no or bf16")
        if self.report_to not in ("none", "trackio", "tensorboard", "wandb"):
            errors.append(f"report_to={self.report_to!r} must be none, trackio, tensorboard or wandb")
        errors += missing_trackers(self.report_to)
        if self.trackio_space_id and self.report_to != "trackio":
            errors.append(f"trackio_space_id={self.trackio_space_id!r} does nothing without report_to: trackio")
        if errors:
            raise RecipeError(errors)
        if self.batch_tokens:
            self.accumulation(self.batch_tokens)

    def horizon(self, vocab_size: int) -> Pretraining:
        """How long pretraining is and how fast it learns, with this vocabulary and any number of processes."""
        size = parameters(self.depth, vocab_size, self.preset, self.num_attention_heads)
        keys = ("tokens_per_parameter", "tokens_per_scaling_parameter", "batch_tokens", "max_steps", "lr_scale")
        micro_batch_tokens = self.per_device_train_batch_size * self.max_length
        return pretraining(size, micro_batch_tokens=micro_batch_tokens, **{key: getattr(self, key) for key in keys})

    def accumulation(self, batch_tokens: int, processes: int = 1) -> int:
        """Micro-batches of a step on each process.

        Raises:
            RecipeError: the processes cannot share the batch evenly.
        """
        batch = StepBatch("batch_tokens", batch_tokens, tokens_per_row=self.max_length)
        return batch.accumulation(self.per_device_train_batch_size, processes)


@dataclass(frozen=True)
class EvaluateConfig(RunFolder):
    stages: list[str] = field(default_factory=lambda: list(MODEL_STAGES), metadata={"help": "those to score"})
    tasks: list[str] = field(default_factory=list, metadata={"help": "lm-eval tasks, ours (nanohf_*) or the harness's"})
    limit: int | None = field(default=None, metadata={"help": "at most so many task rows and word problems; null: all"})
    dataset: str = field(default="builtin", metadata={"help": "word problems: builtin, a folder or a Hub id"})
    dataset_config: str | None = field(default=None, metadata={"help": "its configuration name"})
    word_problems: list[WordProblemSource] = field(default_factory=list, metadata=WORD_PROBLEMS)
    problems: int = field(default=400, metadata={"help": "test word problems for pass@1, of each source"})
    num_generations: int = field(default=4, metadata={"help": "samples per word problem for pass@1"})
    max_completion_length: int = field(default=256, metadata={"help": "tokens of a sample"})
    temperature: float = field(default=1.0, metadata={"help": "of the samples"})
    top_k: int = field(default=50, metadata={"help": "sample among so many; 0: all"})
    batch_size: int = field(default=32, metadata={"help": "word problems, or rows of a task, at a time"})
    text_dataset: str = field(default="builtin", metadata={"help": "text for bits per byte: builtin, folder, Hub id"})
    text_dataset_config: str | None = field(default=None, metadata={"help": "its configuration name"})
    text_column: str = field(default="text", metadata={"help": "its column that holds the document"})
    text_split: str = field(default="train", metadata={"help": "the split that pretraining reads"})
    eval_tokens: int = field(default=1_048_576, metadata={"help": "of that text"})
    max_length: int = field(default=512, metadata={"help": "tokens of a row of it; not more than pretraining's"})
    seed: int = field(default=42, metadata={"help": "of the samples"})

    def __post_init__(self):
        if errors := not_words(self, "stages", "tasks"):
            raise RecipeError(errors)
        if not self.stages or (unknown := set(self.stages) - set(MODEL_STAGES)):
            wrong = sorted(unknown) if self.stages else "[]"
            errors.append(f"stages={wrong}: give one or more of pretrain, midtrain, sft and grpo")
        ours = {path.stem for path in (Path(__file__).parents[1] / "evals/tasks").glob("*.yaml")}
        if missing := [t for t in self.tasks if t.startswith("nanohf_") and t not in ours]:
            errors.append(f"tasks={missing}: ours are {', '.join(sorted(ours))}")
        errors += ladder_errors(self)
        errors += too_small(
            self,
            problems=1,
            num_generations=1,
            max_completion_length=1,
            temperature=0,
            top_k=0,
            batch_size=1,
            eval_tokens=1,
            max_length=2,
            seed=0,
        )
        if self.limit is not None:
            errors += too_small(self, limit=1)
        if errors:
            raise RecipeError(errors)

    @property
    def ladder(self) -> list[WordProblemSource]:
        return ladder(self)
