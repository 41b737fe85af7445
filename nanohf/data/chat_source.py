"""One line of a midtraining or SFT mixture, as a recipe says it."""

from dataclasses import dataclass
from pathlib import Path

from nanohf.data import identity
from nanohf.data.licences import wrong_licence
from nanohf.data.question_split import wrong_share

DOCUMENT = "document"
CONVERTERS = ("messages", "sharegpt", "gsm8k", "mmlu", "arc", "instructions", "story", "identity", DOCUMENT)


@dataclass(frozen=True)
class ChatSource:
    """One line of a mixture: which examples, how they become conversations, and how often they are seen.

    dataset: builtin, a folder or a Hub id, for converter=identity a YAML file; config: its configuration;
    converter: one of CONVERTERS, by default what the columns suggest (`data.conversations.detected`);
    columns: {what the converter wants: what it is called here}, if the names differ; rows: only the first so many;
    epochs: how often each is seen, 0.5 the first half only once, 2.5 the first half three times;
    held_out: this share of the source's questions, with all copies that differ in numbers, is not trained on; of an
    eval_mixture it is what is measured: see `data.question_split`;
    share: converter=document only, instead of rows: this share of the mixture's tokens, 0.2 for a fifth;
    license: the data's, as the Hub spells it, where its card does not say.
    """

    dataset: str
    converter: str | None = None
    config: str | None = None
    split: str = "train"
    columns: dict[str, str] | None = None
    rows: int | None = None
    epochs: float = 1.0
    held_out: float | None = None
    share: float | None = None
    license: str | None = None

    def __post_init__(self):
        if self.converter is not None and self.converter not in CONVERTERS:
            raise ValueError(f"converter={self.converter!r} must be one of {', '.join(CONVERTERS)}")
        if self.epochs <= 0:
            raise ValueError(f"epochs={self.epochs} must be above 0; leave the source out instead")
        if self.is_document:
            if (self.rows is None) == (self.share is None):
                raise ValueError("converter=document needs rows, a number of documents, or share, one of the two")
            if self.split not in ("train", "validation"):
                raise ValueError(f"split={self.split!r} must be train or validation, pretraining's two")
        if error := wrong_share(self.held_out):
            raise ValueError(error)
        if self.held_out is not None and (self.is_document or self.converter == "identity"):
            raise ValueError(f"held_out={self.held_out} is for conversations, not for converter={self.converter}")
        if self.share is not None:
            if not self.is_document or self.epochs != 1:
                raise ValueError("share is for converter=document without epochs; conversations have rows and epochs")
            if not 0 < self.share < 1:
                raise ValueError(f"share={self.share} must be between 0 and 1: 0.2 is a fifth of the mixture's tokens")
        if errors := wrong_licence("license", self.license):
            raise ValueError(*errors)
        if self.converter == "identity":
            if self.split != "train":
                raise ValueError(f"split={self.split!r}: an identity file is for training only")
            identity.load(self.dataset)
        elif self.dataset.endswith(identity.SUFFIXES):
            raise ValueError(f"{self.dataset} is a YAML file, which only converter=identity reads")

    @property
    def is_document(self) -> bool:
        return self.converter == DOCUMENT

    @property
    def text_column(self) -> str:
        return (self.columns or {}).get("text", "text")

    @property
    def name(self) -> str:
        if self.converter == "identity":
            return Path(self.dataset).name
        config = self.config or ("documents" if self.is_document else None)
        return " ".join(filter(None, (self.dataset, config, self.split)))
