"""What recipes of midtrain, sft and grpo may say beside TRL's own keys. No torch, no TRL."""

from dataclasses import MISSING, dataclass, field, fields
from importlib.util import find_spec
from math import gcd
from typing import Any

from nanohf.data.chat_source import ChatSource
from nanohf.data.word_problem_source import WordProblemSource
from nanohf.errors import RecipeError
from nanohf.recipe.schemas import (
    HUB_LICENSE,
    LICENSE,
    WORD_PROBLEMS,
    RunFolder,
    ladder,
    ladder_errors,
    missing_trackers,
    not_words,
    too_small,
    wrong_licences,
)
from nanohf.recipe.stage_names import CHAT_STAGES
from nanohf.recipe.trl_keys import CHOICES, trl_keys
from nanohf.scaling.step_batch import StepBatch

RATES = ("lr_scale", "matrix_lr", "embedding_lr", "lm_head_lr")
LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
COUNTS = ("per_device_train_batch_size", "per_device_eval_batch_size")  # of TRL's
# Of GRPOConfig, what only transformers' generate or vLLM would use.
NOT_THE_ENGINES = (
    "top_p", "min_p", "repetition_penalty", "generation_kwargs", "chat_template_kwargs", "cache_implementation",
)  # fmt: skip


@dataclass(frozen=True)
class PostTrainingConfig(RunFolder):
    """Beside TRL's own fields, which keep their names."""

    model_name_or_path: str = field(default="pretrain", metadata={"help": "a stage of the run, a folder or a Hub id"})
    optimizer: str = field(default="muon", metadata={"help": "muon: ours; trl: what optim and learning_rate say"})
    lr_scale: float = field(default=1.0, metadata={"help": "muon only: factor on the three learning rates below"})
    matrix_lr: float = field(default=0.02, metadata={"help": "Muon's learning rate in pretraining"})
    embedding_lr: float = field(default=0.2, metadata={"help": "the embedding's, at width 768"})
    lm_head_lr: float = field(default=0.004, metadata={"help": "the head's, at width 768"})
    max_nonfinite_steps: int = field(
        default=10, metadata={"help": "end after so many steps in a row without a finite loss and gradient"}
    )
    use_peft: bool = field(default=False, metadata={"help": "train LoRA adapters; the result is merged, a plain model"})
    lora_r: int = field(default=16, metadata={"help": "rank of the adapters"})
    lora_alpha: int = field(default=32, metadata={"help": "adapters count alpha / r times"})
    lora_dropout: float = field(default=0.0, metadata={"help": "before the adapters"})
    lora_target_modules: list[str] = field(default_factory=lambda: ["all-linear"], metadata={"help": "what to adapt"})
    hub_license: str | None = field(default=None, metadata=HUB_LICENSE)

    def __post_init__(self):
        errors = (
            wrong_licences(self)
            + not_words(self, "lora_target_modules")
            + too_small(
                self,
                max_nonfinite_steps=1,
                lora_r=1,
                lora_alpha=1,
                lr_scale=0,
                matrix_lr=0,
                embedding_lr=0,
                lm_head_lr=0,
            )
        )
        if self.optimizer not in ("muon", "trl"):
            errors.append(f"optimizer={self.optimizer!r} must be muon or trl")
        if not 0 <= self.lora_dropout < 1:
            errors.append(f"lora_dropout={self.lora_dropout} must be from 0 to below 1")
        if self.optimizer == "trl":
            errors += self.changed(RATES, "with optimizer: trl, which takes learning_rate")
        if not self.use_peft:
            errors += self.changed(LORA, "without use_peft: true")
        if errors:
            raise RecipeError(errors)

    def changed(self, names: tuple[str, ...], where: str) -> list[str]:
        """An error for each of the fields that differs from its default."""
        defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(self)}
        return [
            f"{name}={value} does nothing {where}; leave it out (default: {defaults[name]})"
            for name in names
            if (value := getattr(self, name)) != defaults[name]
        ]

    def step_batch(self, trl: Any) -> StepBatch:
        """What one step reads, over all processes."""
        raise NotImplementedError

    def batch_errors(self, trl: Any) -> list[str]:
        """Not even one process can take the batch in micro-batches of the recipe's size."""
        try:
            self.step_batch(trl).accumulation(trl.per_device_train_batch_size)
        except RecipeError as error:
            return error.messages
        return []

    def errors_with(self, trl: Any) -> list[str]:
        """What does not fit together with the recipe's TRL keys."""
        errors = missing_trackers(trl.report_to) + too_small(trl, **dict.fromkeys(COUNTS, 1), seed=0, max_grad_norm=0)
        if trl.max_steps < 1 and not trl.num_train_epochs > 0:
            errors.append(f"num_train_epochs={trl.num_train_epochs} must be above 0, or max_steps at least 1")
        for key, choices in CHOICES[type(trl).__name__.replace("Settings", "Config")].items():
            if (value := getattr(trl, key)) not in choices:
                errors.append(f"{key}={value!r} must be one of {', '.join(map(str, choices))}")
        return errors


@dataclass(frozen=True)
class ChatConfig(PostTrainingConfig):
    """Keys of midtrain.yaml and sft.yaml."""

    stage: str = field(default="sft", metadata={"help": "midtrain or sft: the folder the result goes to"})
    lr_scale: float | None = field(  # type: ignore[assignment]  # only chat stages have the rule
        default=None,
        metadata={"help": "muon only: factor on the rates; default: by pretraining's rule"},
    )
    lr_fraction: float = field(default=1.0, metadata={"help": "of that default (nanochat's init_lr_frac)"})
    mixture: list[ChatSource] = field(default_factory=list, metadata={"help": "sources: see data.chat_source"})
    batch_tokens: int | None = field(
        default=None, metadata={"help": "with packing: rows of a step, over all processes, x max_length"}
    )
    conversations_per_step: int | None = field(
        default=None, metadata={"help": "without packing: conversations, or rows of documents, over all processes"}
    )
    eval_mixture: list[ChatSource] = field(
        default_factory=list, metadata={"help": "the same, measured before and after"}
    )
    carry_optimizer: bool = field(
        default=False, metadata={"help": "begin with the moments that model_name_or_path ended with and kept"}
    )
    keep_optimizer: bool = field(default=False, metadata={"help": "beside the result, for the next stage to carry on"})

    def __post_init__(self):
        super().__post_init__()
        if self.stage not in CHAT_STAGES:
            raise RecipeError(f"stage={self.stage!r} must be midtrain or sft")
        errors = [
            f"{name} is empty; list at least one source"
            for name in ("mixture", "eval_mixture")
            if not getattr(self, name)
        ]
        for name in ("carry_optimizer", "keep_optimizer"):
            if getattr(self, name) and (self.use_peft or self.optimizer != "muon"):
                errors.append(f"{name} is for our optimizer over the whole model; leave out use_peft and optimizer")
        if errors := errors or self.document_errors():
            raise RecipeError(errors)

    def errors_with(self, trl: Any) -> list[str]:
        errors = super().errors_with(trl) + too_small(trl, max_length=2)
        errors += too_small(self, batch_tokens=1, conversations_per_step=1, lr_fraction=0)
        if self.lr_scale is not None or self.optimizer == "trl":
            where = "with optimizer: trl" if self.optimizer == "trl" else "with lr_scale, which replaces the rule"
            errors += self.changed(("lr_fraction",), where)
        wanted, unused, example = (
            ("batch_tokens", "conversations_per_step", "rows x max_length, such as 16 x 1,024 = 16,384")
            if trl.packing
            else ("conversations_per_step", "batch_tokens", "conversations of a step, such as nanochat's 32")
        )
        packing = f"packing: {'true' if trl.packing else 'false'}"
        if (value := getattr(self, unused)) is not None:
            errors.append(f"{unused}={value:,} does nothing with {packing}; leave it out, or set it to null")
        if getattr(self, wanted) is None:
            errors.append(f"{wanted} is missing. With {packing} it is the batch of all processes: {example}")
        if trl.packing and trl.max_length is None:
            errors.append("max_length=null: packed rows need a length, such as 1024")
        return errors or self.batch_errors(trl)

    def step_batch(self, trl: Any) -> StepBatch:
        if trl.packing:
            return StepBatch("batch_tokens", self.batch_tokens or 0, tokens_per_row=trl.max_length)
        return StepBatch("conversations_per_step", self.conversations_per_step or 0)

    def document_errors(self) -> list[str]:
        errors = []
        for name in ("mixture", "eval_mixture"):
            sources = getattr(self, name)
            if all(source.is_document for source in sources):
                errors.append(f"{name} has documents only; add at least one source of conversations")
            if (shares := sum(source.share or 0 for source in sources)) >= 1:
                errors.append(f"{name}: the shares of its documents add up to {shares:g}; leave room below 1")
        if any(source.share for source in self.eval_mixture):
            errors.append("eval_mixture: a share has no meaning there; give the documents' number as rows")
        return errors


def save_steps_errors(trl: Any, step: int) -> list[str]:
    """A checkpoint in the midst of what one generation serves could not be continued from. step: its completions."""
    generation = (trl.generation_batch_size or step) * trl.num_iterations
    steps = generation // gcd(generation, step)
    if trl.save_steps % steps == 0:
        return []
    return [
        f"save_steps={trl.save_steps} must be a multiple of {steps}, the steps that one generation serves, "
        f"or a resumed run does not continue as it was. Try {max(1, round(trl.save_steps / steps)) * steps}."
    ]


@dataclass(frozen=True)
class WordProblemConfig(PostTrainingConfig):
    """Keys of grpo.yaml."""

    dataset: str = field(default="builtin", metadata={"help": "word problems: builtin, a folder or a Hub id"})
    dataset_config: str | None = field(default=None, metadata={"help": "its configuration name"})
    dataset_rows: int | None = field(default=None, metadata={"help": "only the first so many"})
    license: str | None = field(default=None, metadata=LICENSE)
    word_problems: list[WordProblemSource] = field(default_factory=list, metadata=WORD_PROBLEMS)
    validation: float = field(
        default=0.05, metadata={"help": "share of each source's questions kept to choose the best step by"}
    )
    problems_per_step: int = field(
        default=16, metadata={"help": "word problems of a step, num_generations completions each, over all processes"}
    )
    eval_problems: int = field(default=400, metadata={"help": "validation word problems for pass@k, of each source"})
    eval_generations: int = field(default=8, metadata={"help": "samples per word problem for pass@k, k up to this"})
    eval_every: int = field(default=60, metadata={"help": "pass@k every so many steps, before and after besides"})
    skip_settled: float = field(
        default=0.0, metadata={"help": "chance to pass over a word problem whose last group was all right or all wrong"}
    )
    force: bool = field(default=False, metadata={"help": "begin even if hardly any group has a spread to learn from"})

    def __post_init__(self):
        super().__post_init__()
        errors = too_small(self, problems_per_step=1, eval_problems=1, eval_generations=1, eval_every=1)
        errors += ladder_errors(self)
        if not 0 < self.validation <= 0.5:
            errors.append(f"validation={self.validation} must be above 0 and at most 0.5: 0.05 keeps a twentieth")
        errors += [
            f"word_problems: {s.label}: held_out={s.held_out} and validation={self.validation} leave none to train on"
            for s in self.word_problems
            if (s.held_out or 0) + self.validation >= 1
        ]
        if not 0 <= self.skip_settled < 1:
            errors.append(f"skip_settled={self.skip_settled} must be from 0 to below 1")
        if errors:
            raise RecipeError(errors)

    def errors_with(self, trl: Any) -> list[str]:
        errors = super().errors_with(trl)
        errors += too_small(trl, num_generations=2, num_iterations=1, generation_batch_size=1, max_completion_length=1)
        errors += too_small(trl, top_k=0, beta=0)
        if not trl.temperature > 0:
            errors.append(f"temperature={trl.temperature} must be above 0: groups need different answers")
        errors += [] if errors else save_steps_errors(trl, self.problems_per_step * trl.num_generations)
        errors += [] if errors else self.batch_errors(trl)
        if trl.dataloader_num_workers and (self.skip_settled or len(self.word_problems) > 1):
            errors.append(
                f"dataloader_num_workers={trl.dataloader_num_workers} draws word problems before the rewards are "
                "known that skip_settled and several word_problems need. Set it to 0."
            )
        unused = [name for name in NOT_THE_ENGINES if getattr(trl, name) != trl_keys("GRPOConfig")[name][1]]
        if unused and not trl.use_vllm:
            errors.append(f"{', '.join(unused)}: the engine uses temperature and top_k only; leave it out")
        if trl.use_vllm and find_spec("vllm") is None:
            errors.append("use_vllm needs vLLM and a CUDA GPU: pip install 'trl[vllm]', or leave use_vllm out")
        return errors

    @property
    def ladder(self) -> list[WordProblemSource]:
        return ladder(self)

    def step_batch(self, trl: Any) -> StepBatch:
        return StepBatch("problems_per_step", self.problems_per_step, completions=trl.num_generations)
