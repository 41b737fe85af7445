"""What a finished stage leaves in writing: one type that reports, cards, the ledger and the planner read.

Units stand in the names. A figure that is None was not measured, or means nothing for the stage: `tokenizer` has no
tokens per second, only `grpo` has rewards.
"""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from nanohf.errors import RecipeError

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class _Written:
    """A record as a JSON file."""

    def write(self, path: Path) -> None:
        write_json(path, {"schema_version": SCHEMA_VERSION} | asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        """
        Raises:
            RecipeError: a record of another version, or no record at all.
        """
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            version = written.pop("schema_version", 1)
        except (ValueError, TypeError, AttributeError) as error:
            raise damaged(path, error) from error
        if version != SCHEMA_VERSION:
            raise RecipeError(
                f"{path} has schema_version {version}; this nanohf reads {SCHEMA_VERSION}. "
                "Run the stage again under another --name, or use the nanohf that wrote it."
            )
        known = {f.name for f in fields(cls)}
        try:
            return cls(**{key: value for key, value in written.items() if key in known})
        except TypeError as error:  # a figure is missing that every record has
            raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> RecipeError:
    return RecipeError(f"{path} is damaged: {error}. Delete the file and run its stage again.")


@dataclass(frozen=True)
class StageRecord(_Written):
    """stage.json of a finished stage.

    metric, before, after: what the stage is judged by, and its value when it began and ended. recipe: what was written,
    overrides included. resumed: minutes, tokens and tokens_per_second count from where the stage was resumed.
    """

    stage: str
    finished: str  # ISO 8601, UTC
    minutes: float
    metric: str
    before: float
    after: float
    recipe: dict[str, Any]
    host: str = ""  # never published; of a stage that was fetched from the Hub it is not known
    versions: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    device_name: str | None = None
    world_size: int = 1
    peak_memory_bytes: int | None = None  # of this process: GPU memory as torch allocated it, else resident
    depth: int | None = None
    vocab_size: int | None = None
    parameters: int | None = None
    steps: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    flops: int | None = None  # of training, forward and backward: tokens x scaling.flops.flops_per_token
    resumed: bool = False
    nonfinite_steps: int = 0  # not applied
    pushed_to: str | None = None  # the Hub repo
    fetched_from: str | None = None  # the Hub repo, if it was not made in this run's folder
    data: list[dict] = field(default_factory=list)  # its own and its parents', with licences: see runs.data_used
    hub_license: str | None = None  # what the user decided with nanohf push --license, or in the recipe
    sample: str | None = None  # what the result makes of a fixed prompt, greedily: see train.sample

    # tokenizer
    characters: int | None = None
    characters_per_token: float | None = None
    bytes_per_token: float | None = None
    round_trip: float | None = None  # share of validation texts that come back unchanged: 1.0 or 0.0

    # pretrain
    mixed_precision: str | None = None
    mfu: float | None = None
    loader_share: float | None = None  # of the time, spent waiting for text
    empty_documents: int | None = None
    epochs: float | None = None  # how often the text was read; None where its size is not known
    aligned: float | None = None  # share of the rows that begin with a document
    continued: float | None = None  # share of the tokens that stand apart from their document's beginning
    skipped_files: list[str] = field(default_factory=list)
    validation: list[list[float]] = field(default_factory=list)  # [step, bits per byte]

    # pretrain, midtrain and sft
    losses: list[list[float]] = field(default_factory=list)  # [step, training loss]

    # midtrain and sft
    mixture: list[dict] = field(default_factory=list)  # what each source gave: see data.mixture
    held_out: list[dict] = field(default_factory=list)  # {source, metric, tokens, before, after}
    assistant_only_loss: bool | None = None

    # grpo
    # By step {step, seconds, pass@1, sources}, on validation word problems: sources by name as evals.pass_at_k.score
    # has them, pass@1 their mean.
    word_problems: list[dict] = field(default_factory=list)
    chosen: dict = field(default_factory=dict)  # the same of the step that is the result, on fresh samples
    drawn: dict[str, dict] = field(default_factory=dict)  # by source {groups, pass_rate}, over the training
    rewards: list[list[float]] = field(default_factory=list)  # [step, mean reward]
    timed_steps: int | None = None
    seconds_by_phase: dict[str, float] = field(default_factory=dict)  # over timed_steps


@dataclass(frozen=True)
class EvaluationRecord(_Written):
    """results.json: the stages of a run side by side.

    stages: {stage: {parameters, bpb, word_problems, tasks}}, with word_problems by source as evals.pass_at_k.score has
    them; finished: when each scored stage had been finished, by which results older than a stage are known;
    conversation: one answer of the last stage, readable.
    """

    stages: dict[str, dict]
    finished: dict[str, str]
    conversation: str
    minutes: float
    recipe: dict[str, Any]
    device: str = "cpu"
    host: str = ""


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: written beside, then renamed."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(partial, path)
