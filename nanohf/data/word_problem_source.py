"""One rung of GRPO's and evaluate's ladder of word problems, as a recipe says it."""

from dataclasses import dataclass
from pathlib import Path

from nanohf.data.licences import wrong_licence
from nanohf.data.question_split import wrong_share


@dataclass(frozen=True)
class WordProblemSource:
    """One line of `word_problems`: where its word problems are, and which of them are for what.

    dataset: builtin, a file, a folder or a Hub id in GSM8K's format; config: its configuration; name: how tables call
    it, by default the last part of dataset; split: what is trained on, such as train+test; rows: only the first so many
    of it; columns: {question or answer: what it is called here}, if the names differ; where: {column: [values]}, only
    rows with one of these values; test_split: what evaluate scores; held_out: instead of a test_split, this share of
    `split` is never trained on and scored by evaluate: see `data.question_split`; license: the data's, as the Hub
    spells it, where its card does not say.
    """

    dataset: str
    name: str | None = None
    config: str | None = None
    split: str = "train"
    rows: int | None = None
    columns: dict[str, str] | None = None
    where: dict[str, list] | None = None
    test_split: str = "test"
    held_out: float | None = None
    license: str | None = None

    def __post_init__(self):
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows={self.rows} must be at least 1")
        if not self.label.strip() or "|" in self.label or not self.label.isprintable():
            raise ValueError(f"name={self.label!r} must be one line of text without |")
        if error := wrong_share(self.held_out):
            raise ValueError(error)
        if self.columns is not None and self.columns.keys() - {"question", "answer"}:
            raise ValueError(f"columns={self.columns} must say what question and answer are called here")
        for column, values in (self.where or {}).items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"where={{{column}: {values!r}}} must list the values to take: {{{column}: [a, b]}}")
        if errors := wrong_licence("license", self.license):
            raise ValueError(*errors)

    @property
    def label(self) -> str:
        return label(self.dataset, self.name)


def label(dataset: str, name: str | None) -> str:
    """A source by its name in tables and results."""
    return name if name is not None else Path(dataset).name or dataset
