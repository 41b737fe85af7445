"""What a stage was made from, with the licence that each had when the stage started: its own data and its parents'.

The list stands in the stage's record (`data`), each stage's with all that it inherits, since a parent may be made again
from other data. Records of before it was written are filled in by `completed`.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nanohf.data.identity import SUFFIXES
from nanohf.data.licences import OURS, UNKNOWN, is_unknown
from nanohf.errors import RecipeError
from nanohf.recipe.stage_names import CHAT_STAGES, STAGES
from nanohf.runs.stage_record import StageRecord, write_json

OWN, LOCAL, DATASET, MODEL = "nanohf", "local", "dataset", "model"
STATED = "stated in the recipe"
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
NOTE = "data.json"  # beside a stage's checkpoints, until its record is there


@dataclass(frozen=True)
class DataUsed:
    """One source of one stage.

    dataset: as the recipe names it, or a model's folder or id; place: nanohf (builtin and identity files), local, or
    dataset or model, which are on the Hub; licence: as the Hub spells it, or unknown; origin: where that was read, or
    why it is not known; rows, tokens: what it gave to the stage, where that is counted.
    languages: codes that its card names.
    """

    dataset: str
    stage: str
    place: str
    licence: str
    origin: str
    rows: int | None = None
    tokens: int | None = None
    languages: list[str] = field(default_factory=list)

    @property
    def on_hub(self) -> bool:
        return self.place in (DATASET, MODEL)


def named_sources(stage: str, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """What a recipe names as data: its mixture or word problems, or its one dataset. The default dataset is builtin.

    What is only measured is marked so.
    """
    if stage in CHAT_STAGES:
        measured = [source | {"measured": True} for source in recipe.get("eval_mixture", [])]
        return [*recipe.get("mixture", []), *measured]
    if sources := recipe.get("word_problems"):
        return list(sources)
    source = {"dataset": recipe.get("dataset", "builtin"), "config": recipe.get("dataset_config")}
    return [source | {"rows": recipe.get("dataset_rows"), "split": "train", "license": recipe.get("license")}]


def trained_sources(stage: str, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    return [source for source in named_sources(stage, recipe) if not source.get("measured")]


def collect(
    stage: str,
    recipe: dict[str, Any],
    run_dir: Path,
    before: Sequence[DataUsed] = (),
    planned: Mapping[str, list[DataUsed]] | None = None,
    below: tuple[Path, ...] = (),
) -> list[DataUsed]:
    """Everything that goes into a stage: first its own sources in their order, then what its parent was made from.

    What is only measured (held out) is not among it. before: what was found when the stage first started, which counts
    still; planned: of stages that are not done yet; below: folders that led here.
    """
    had = {data.dataset: data for data in before if data.stage == stage and not is_unknown(data.licence)}
    own = [_source(stage, source, had.get(source["dataset"])) for source in trained_sources(stage, recipe)]
    if stage == "tokenizer":
        return own
    key, default = ("tokenizer",) * 2 if stage == "pretrain" else ("model_name_or_path", "pretrain")
    return own + _inherited(stage, recipe.get(key) or default, run_dir, planned or {}, below)


def recorded(record: StageRecord) -> list[DataUsed]:
    """What the record says that its stage was made from, with the rows and tokens it has; [] for an old record."""
    return _counted(record, _read(record.data))


def data_of(record: StageRecord, folder: Path, below: tuple[Path, ...] = ()) -> list[DataUsed]:
    """The same of the finished stage in this folder; what an old record lacks is looked up."""
    return _counted(record, _entries(record, folder, below))


def _counted(record: StageRecord, found: list[DataUsed]) -> list[DataUsed]:
    if record.stage in CHAT_STAGES:
        counts = [(given.get("rows"), given.get("tokens")) for given in record.mixture]
    else:
        counts = [(None, record.tokens if record.stage == "pretrain" and not record.resumed else None)]
    if len(trained_sources(record.stage, record.recipe)) != len(counts) or len(found) < len(counts):
        return found  # a record without its mixture
    own = zip(found, counts, strict=False)  # a stage's own sources come first
    return [replace(data, rows=rows, tokens=tokens) for data, (rows, tokens) in own] + found[len(counts) :]


def completed(folder: Path) -> StageRecord:
    """The record, what it lacks looked up now: all of an old one's data, and what the Hub could not be asked for."""
    path = folder / "stage.json"
    record = StageRecord.read(path)
    data = [asdict(_again(one)) for one in _entries(record, folder)]
    if data != record.data:
        record = replace(record, data=data)
        record.write(path)
    return record


def note(folder: Path, stage: str, recipe: dict[str, Any], run_dir: Path) -> None:
    """Keeps, beside the checkpoints, what a stage is made from. A resumed stage keeps what was found at its start."""
    write_json(folder / NOTE, [asdict(data) for data in collect(stage, recipe, run_dir, before=noted(folder))])


def noted(folder: Path) -> list[DataUsed]:
    try:
        return _read(json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not there, or half written by an older nanohf
        return []


def _entries(record: StageRecord, folder: Path, below: tuple[Path, ...] = ()) -> list[DataUsed]:
    if record.data:
        return _read(record.data)
    return collect(record.stage, record.recipe, folder.parent, below=(*below, folder.resolve()))


def _read(data: list[dict]) -> list[DataUsed]:
    known = {field.name for field in fields(DataUsed)}
    return [DataUsed(**{key: value for key, value in one.items() if key in known}) for one in data]


def _source(stage: str, source: dict[str, Any], had: DataUsed | None) -> DataUsed:
    dataset = source["dataset"]
    ours = dataset == "builtin" or dataset.endswith(SUFFIXES)
    on_hub = HUB_NAME.fullmatch(dataset) and not os.path.exists(dataset)
    place = OWN if ours else DATASET if on_hub else LOCAL
    if licence := source.get("license"):
        return DataUsed(dataset, stage, place, licence, STATED)
    if ours:
        builtin = dataset == "builtin"
        origin, languages = ("part of nanohf", ["en"]) if builtin else ("an identity file", [])
        return DataUsed(dataset, stage, place, OURS, origin, languages=languages)
    return had if had and had.origin != STATED else _looked_up(dataset, stage, place)


def _looked_up(name: str, stage: str, place: str) -> DataUsed:
    from nanohf.data.licence_lookup import folder_licence, hub_licence

    found = folder_licence(Path(name)) if place == LOCAL else hub_licence(name, place)
    return DataUsed(name, stage, place, found.id, found.origin, languages=list(found.languages))


def _again(data: DataUsed) -> DataUsed:
    if not data.on_hub or not is_unknown(data.licence) or data.origin == STATED:
        return data
    found = _looked_up(data.dataset, data.stage, data.place)
    return data if is_unknown(found.licence) else replace(found, rows=data.rows, tokens=data.tokens)


def _inherited(
    stage: str, source: str, run_dir: Path, planned: Mapping[str, list[DataUsed]], below: tuple[Path, ...]
) -> list[DataUsed]:
    """What the model (or tokenizer) that the stage starts from was made from: a stage, a folder or a Hub id."""
    if source in planned:
        return planned[source]
    folder = run_dir / source if source in STAGES else Path(source)
    if source not in STAGES and not os.path.isdir(source):
        return [_looked_up(source, stage, MODEL)]
    if not (folder / "stage.json").is_file():
        if folder.is_dir():
            return [_looked_up(os.fspath(folder), stage, LOCAL)]
        return [DataUsed(source, stage, LOCAL, UNKNOWN, f"the run has no finished stage {source}")]
    if folder.resolve() in below:
        return []
    try:
        return data_of(StageRecord.read(folder / "stage.json"), folder, below)
    except RecipeError:  # as of a model downloaded from the Hub: what is published of a record is not all of it
        return [_looked_up(os.fspath(folder), stage, LOCAL)]
