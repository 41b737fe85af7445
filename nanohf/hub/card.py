"""Model cards: what a stage's stage.json and the run's results.json say, and not a number more.

`model_cards/STAGE.md.jinja` is filled here; an absent figure reads "not measured". Values get into it as text only
(`card_text`): a template is never made of them.
"""

import re
from dataclasses import asdict, replace

import yaml
from huggingface_hub import ModelCard
from jinja2 import Environment, FileSystemLoader

from nanohf.data.hub_names import split_revision
from nanohf.hub.card_metadata import eval_results_yaml, evaluated_on, metadata, pass_keys, scores_of
from nanohf.hub.card_text import LONGEST, code, hub_id, inline, known, linked, named
from nanohf.hub.licensing import card_licence, merged
from nanohf.hub.paths import without_paths
from nanohf.recipe.credentials import without_credentials
from nanohf.recipe.recipe_folder import shipped
from nanohf.recipe.stage_names import STAGES
from nanohf.runs.curves import FILE, curves_of
from nanohf.runs.data_used import DATASET, HUB_NAME, DataUsed, named_sources, recorded
from nanohf.runs.stage_record import SCHEMA_VERSION, EvaluationRecord, StageRecord
from nanohf.scaling.parameters import hidden_size, parameters
from nanohf.tokenizer.render import fenced

__all__ = ["card", "eval_results_yaml", "hub_id", "public", "recipe_yaml", "started_with"]

PRIVATE = ("host", "pushed_to", "fetched_from")  # of stage.json: nobody's business
MACHINE = ("run_dir", "output_dir", "hub_token")  # of a recipe, likewise
PUBLISHING = ("push_to_hub", "hub_model_id", "hub_private_repo")  # up to whoever trains it again


def card(
    record: StageRecord,
    results: EvaluationRecord | None,
    repo_id: str,
    base_model: str | None = None,
    chain: list[str] | None = None,
) -> str:
    """The README.md of a stage.

    results: the run's, if there are any; base_model: the Hub id that the stage was made from; chain: the stages whose
    recipes stand beside it, the first one first; None: all from the tokenizer on.
    """
    results = results and replace(results, **without_paths(without_credentials(asdict(results))))
    stage, figures, scores = record.stage, public(record), scores_of(record.stage, results)
    repo_id = re.sub(r"[^\w./-]", "-", repo_id)[:LONGEST]
    recipe, curve = figures["recipe"], [*record.word_problems[:1], record.chosen] if record.chosen else []
    environment = Environment(
        loader=FileSystemLoader(shipped("model_cards")),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"known": known, "fenced": fenced}
    text = environment.get_template(f"{stage}.md.jinja").render(
        metadata=metadata(record, figures, results, repo_id, base_model).to_yaml(),
        repo_id=repo_id,
        name=repo_id.split("/")[-1],
        record=figures,
        size=_size(record),
        device=_device(record),
        time=f"{known(record.minutes / 60)} hours" if record.minutes >= 120 else f"{known(record.minutes)} minutes",
        made_from=_made_from(recipe, base_model),
        sources=[_described(source) for source in named_sources(stage, recipe)],
        licence=card_licence(record),
        data=[_licensed(data) for data in merged(recorded(record))],
        evaluation=_rows(scores),
        word_problems=", ".join(map(named, evaluated_on(results).values())) if scores.get("word_problems") else None,
        curve=[row | {"step": known(point.get("step"))} for point in curve for row in _pass_rows(point["sources"])],
        example=next(iter(curve[-1]["sources"].values())).get("example") if curve else None,
        picture=FILE if curves_of(record) else None,
        space=hub_id(recipe.get("trackio_space_id")),
        first=(chain or STAGES)[0],
        recipe_yaml=recipe_yaml(record),
        versions=", ".join(f"{inline(name)} {inline(found)}" for name, found in record.versions.items()),
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return str(ModelCard(text.encode("utf-8", "replace").decode("utf-8")))


def recipe_yaml(record: StageRecord) -> str:
    """What was set, as a recipe that trains it again: without where it was written and published."""
    recipe = {key: value for key, value in public(record)["recipe"].items() if key not in PUBLISHING}
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=110).strip()


def started_with(record: StageRecord) -> str | None:
    """What the stage's recipe starts from: a stage, a folder or a Hub id; None for the tokenizer."""
    if record.stage == "tokenizer":
        return None
    key, default = ("tokenizer",) * 2 if record.stage == "pretrain" else ("model_name_or_path", "pretrain")
    return record.recipe.get(key) or default


def public(record: StageRecord) -> dict:
    """What may be published of a record: what was measured, without the machine, its owner's paths and what logs in."""
    figures = {
        key: value for key, value in asdict(record).items() if key not in PRIVATE and value not in (None, [], {})
    }
    recipe = {key: value for key, value in record.recipe.items() if key not in MACHINE}
    return {"schema_version": SCHEMA_VERSION} | without_paths(without_credentials(figures | {"recipe": recipe}))


def _size(record: StageRecord) -> str | None:
    """The parameters as the formula gives them, where it gives as many as there are."""
    if not (record.depth and record.vocab_size and record.parameters):
        return None
    depth, vocab_size, heads = record.depth, record.vocab_size, record.recipe.get("num_attention_heads")
    if parameters(depth, vocab_size).total == record.parameters:
        shape = f"V = {vocab_size:,} (vocabulary), C = {hidden_size(depth):,} (hidden size), L = {depth} (depth)"
        return f"{record.parameters:,} = 2·V·C + 12·L·C², where {shape}"
    parts = asdict(parameters(depth, vocab_size, "modern", heads))
    if sum(parts.values()) != record.parameters:
        return None
    return f"{record.parameters:,} = " + " + ".join(f"{n:,} ({name.replace('_', ' ')})" for name, n in parts.items())


def _device(record: StageRecord) -> str:
    processes = f", {record.world_size} processes" if record.world_size > 1 else ""
    name = f" ({inline(record.device_name)})" if record.device_name else ""
    return f"{inline(record.device)}{name}{processes}"


def _licensed(data: DataUsed) -> dict:
    """A line of the card's table of data and licences, all as text."""
    name = named(without_paths(data.dataset))
    repo_id, revision = split_revision(data.dataset)
    if data.on_hub and HUB_NAME.fullmatch(repo_id) and len(repo_id) <= LONGEST:
        kind = "datasets/" if data.place == DATASET else ""
        name = f"[{inline(repo_id)}](https://huggingface.co/{kind}{repo_id})"
        name += f" at {inline(revision)}" if revision else ""
    return {
        "name": name,
        "stage": inline(data.stage),
        "licence": code(data.licence),
        "origin": inline(without_paths(data.origin)),
        "rows": known(data.rows, "-"),
        "tokens": known(data.tokens, "-"),
    }


def _described(source: dict) -> str:
    """`[openai/gsm8k](...), main, train, 2 epochs` for the card's list."""
    config, split = (inline(value) if (value := source.get(key)) else None for key in ("config", "split"))
    parts = [linked(source["dataset"]), config, split or "train"]
    parts += [f"the first {int(source['rows']):,} rows" if source.get("rows") else None]  # an override is a string
    parts += [f"{source['epochs']:g} epochs" if source.get("epochs", 1) != 1 else None]
    parts += ["plain documents, all of their tokens" if source.get("converter") == "document" else None]
    parts += [f"{100 * source['share']:g}% of the tokens" if source.get("share") else None]
    parts += [f"only {inline(f'{column} = {values}')}" for column, values in (source.get("where") or {}).items()]
    if share := source.get("held_out"):
        kept_apart = f"{100 * share:g}% of its questions that are kept apart"
        parts.append(f"the {kept_apart}" if source.get("measured") else f"without the {kept_apart}")
    parts += ["held out" if source.get("measured") else None]
    return ", ".join(filter(None, parts))


def _made_from(recipe: dict, base_model: str | None) -> str:
    source = recipe.get("model_name_or_path", "pretrain")
    if base_model:
        _, revision = split_revision(source)
        at = f" at {code(revision)}" if revision else ""
        return f"[{base_model}](https://huggingface.co/{base_model}){at}"
    return f"the run's stage `{source}`" if source in STAGES else code(source)


def _rows(scores: dict) -> list[dict]:
    """The lines of the evaluation table: what, value, interval, n, all as text."""
    rows = []
    if "bpb" in scores:
        rows.append({"what": "bits per byte", "value": known(scores["bpb"]), "interval": "-", "n": "-"})
    rows += _pass_rows(scores.get("word_problems", {}))
    for task, result in scores.get("tasks", {}).items():
        value, stderr = result["value"], result.get("stderr")
        interval = (
            "not measured" if stderr is None else f"[{known(value - 1.96 * stderr)}, {known(value + 1.96 * stderr)}]"
        )
        what = inline(f"{task} ({result['metric']})")
        rows.append({"what": what, "value": known(value), "interval": interval, "n": known(result.get("n"))})
    return rows


def _pass_rows(solved: dict[str, dict]) -> list[dict]:
    """Of each source of word problems, which is named where there are several."""

    def row(name: str, k: str, n: int, mean: float, low: float, high: float) -> dict:
        what = f"{inline(name)}: {k}" if len(solved) > 1 else k
        interval = f"[{100 * low:.1f}%, {100 * high:.1f}%]"
        return {"what": what, "value": f"{100 * mean:.1f}%", "interval": interval, "n": f"{n:,}"}

    return [row(name, k, of["n"], *of[k]) for name, of in solved.items() for k in pass_keys(of)]
