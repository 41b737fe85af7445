"""Under which licence a result is published: what its card says, and what is not pushed until the user has decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nanohf import console
from nanohf.data.licences import UNKNOWN, is_unknown, needs_decision, rivals, said, strictest
from nanohf.errors import RecipeError
from nanohf.recipe.loading import Recipe
from nanohf.runs.data_used import MODEL, DataUsed, collect, completed, recorded, trained_sources
from nanohf.runs.stage_record import StageRecord


@dataclass(frozen=True)
class CardLicence:
    """For a card. id: an id of the Hub; stated: whether the user decided it; by_data: what the data alone would give.

    unknown: whether some data is of unknown licence; rivals: see `data.licences.rivals`.
    """

    id: str
    stated: bool
    by_data: str
    unknown: bool
    rivals: list[str]


def card_licence(record: StageRecord) -> CardLicence:
    """The user's decision if there is one, else the strictest of all data. What a record does not say is unknown."""
    found = [one.licence for one in recorded(record)] or [UNKNOWN]
    stated, by_data = record.hub_license, strictest(found)
    others = [licence for licence in rivals(found) if licence != stated]
    return CardLicence(stated or by_data, bool(stated), by_data, any(map(is_unknown, found)), others)


def merged(data: Sequence[DataUsed]) -> list[DataUsed]:
    """A line for each data set of each stage, what several of its sources gave added up."""
    lines: dict[tuple, DataUsed] = {}
    for one in data:
        key = (one.stage, one.dataset, one.licence, one.origin)
        had = lines.get(key)
        lines[key] = one if had is None else _sum(had, one)
    return list(lines.values())


def _sum(a: DataUsed, b: DataUsed) -> DataUsed:
    def add(x: int | None, y: int | None) -> int | None:
        return None if x is None or y is None else x + y

    return DataUsed(a.dataset, a.stage, a.place, a.licence, a.origin, add(a.rows, b.rows), add(a.tokens, b.tokens))


def refusals(data_by_stage: dict[str, Sequence[DataUsed]], cure: str) -> list[str]:
    """An error for each data set that keeps these stages from being pushed. cure: what to type; {} is a licence."""
    stages: dict[tuple[str, str, str], list[str]] = {}
    for stage, data in data_by_stage.items():
        for one in data:
            if needs_decision(one.licence):
                names = stages.setdefault((one.dataset, one.licence, one.origin), [])
                names += [stage] if stage not in names else []
    return [
        f"{', '.join(names)} cannot be pushed: {dataset} is {said(licence)}: {origin}. Decide under which licence you "
        f"publish what was made from it, and say so: {cure.replace('{}', strictest([licence]))}"
        for (dataset, licence, origin), names in stages.items()
    ]


def check_push(run_dir: str | Path, stages: Sequence[str], licence: str | None = None) -> list[str]:
    """What keeps finished stages from being pushed. licence: the user's decision; else their records may have one."""
    undecided: dict[str, Sequence[DataUsed]] = {}
    for stage in stages:
        record = completed(Path(run_dir) / stage)
        if not (licence or record.hub_license):
            undecided[stage] = recorded(record)
    return refusals(undecided, "--license {}")


def check_run(recipes: dict[str, Recipe], todo: Sequence[str], pushed: Sequence[str]) -> None:
    """Before any stage of a run: a warning for data of unknown licence, and a refusal where it would be pushed.

    todo: the stages that are not done; pushed: those that would be pushed.

    Raises:
        RecipeError: data that is non-commercial or of unknown licence goes into a stage of `pushed`.
    """
    found: dict[str, list[DataUsed]] = {}
    undecided: dict[str, Sequence[DataUsed]] = {}
    for stage, recipe in recipes.items():
        if stage in todo and stage != "evaluate":
            found[stage] = collect(stage, recipe.written, recipe.run_dir, planned=found)
            decided = recipe.hub_license
        elif stage in pushed:
            record = completed(recipe.run_dir / stage)
            found[stage], decided = recorded(record), recipe.hub_license or record.hub_license
        if stage in pushed and not decided:
            undecided[stage] = found[stage]
    if errors := refusals(undecided, "--license {} beside --push, or hub_license: {} in their recipes"):
        raise RecipeError(errors)
    for stage, one in _unknown(found, todo):
        what = "model" if one.place == MODEL else "dataset"
        console.warning(
            f"{stage}: {what}={one.dataset!r} is of unknown licence: {one.origin}. The card will say license: other, "
            f"and a push will ask for your decision. {_cure(recipes, todo, one)}"
        )


def _cure(recipes: dict[str, Recipe], todo: Sequence[str], one: DataUsed) -> str:
    """Where a licence that the user knows is to be written: beside the data, if a stage to come names it."""
    named = trained_sources(one.stage, recipes[one.stage].written) if one.stage in todo else []
    if one.dataset in [source["dataset"] for source in named]:
        return "If you know the data's licence, set license: where the recipe names it"
    return "It comes with what the stage starts from: decide with --license, or with hub_license: in the recipe"


def _unknown(found: dict[str, list[DataUsed]], todo: Sequence[str]) -> list[tuple[str, DataUsed]]:
    """Data of unknown licence, each once, with the first stage of `todo` that it goes into."""
    unknown: dict[tuple[str, str], tuple[str, DataUsed]] = {}
    for stage in todo:
        for one in found.get(stage, ()):
            if is_unknown(one.licence):
                unknown.setdefault((one.dataset, one.place), (stage, one))
    return list(unknown.values())
