"""Model cards: what a stage's stage.json and the run's results.json say, and not a number more.

`model_cards/STAGE.md.jinja` is filled here; an absent figure reads "not measured".
"""

import re
from dataclasses import asdict, replace
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from jinja2 import Environment, FileSystemLoader, Undefined

from nanohf.hub.licensing import card_licence, merged
from nanohf.hub.paths import without_paths
from nanohf.recipe.credentials import without_credentials
from nanohf.recipe.recipe_folder import shipped
from nanohf.recipe.stage_names import STAGES
from nanohf.runs.data_used import DATASET, DataUsed, named_sources, recorded, trained_sources
from nanohf.runs.stage_record import SCHEMA_VERSION, EvaluationRecord, StageRecord
from nanohf.tokenizer.render import fenced

PRIVATE = ("host", "pushed_to", "fetched_from")  # of stage.json: nobody's business
MACHINE = ("run_dir", "output_dir", "hub_token")  # of a recipe, likewise

# lm-eval task -> Hub dataset, configuration. Other tasks are named by the harness's name.
TASK_DATA = {
    "nanohf_gsm8k": ("openai/gsm8k", "main"),
    "nanohf_mmlu": ("cais/mmlu", "all"),
    "nanohf_arc_easy": ("allenai/ai2_arc", "ARC-Easy"),
    "nanohf_arc_challenge": ("allenai/ai2_arc", "ARC-Challenge"),
}
GSM8K_TEST_ROWS = 1319
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def card(record: StageRecord, results: EvaluationRecord | None, repo_id: str, base_model: str | None = None) -> str:
    """The README.md of a stage.

    results: the run's, if there are any; base_model: the Hub id that the stage was made from.
    """
    results = results and replace(results, **without_paths(without_credentials(asdict(results))))
    stage, figures, scores = record.stage, public(record), _scores(record.stage, results)
    recipe, curve = figures["recipe"], record.pass_at_k
    environment = Environment(
        loader=FileSystemLoader(shipped("model_cards")),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"known": _known, "fenced": fenced}
    text = environment.get_template(f"{stage}.md.jinja").render(
        metadata=_metadata(record, figures, results, repo_id, base_model).to_yaml(),
        repo_id=repo_id,
        record=figures,
        made_from=_made_from(recipe, base_model),
        sources=[_described(source) for source in named_sources(stage, recipe)],
        licence=card_licence(record),
        data=[_licensed(data) for data in merged(recorded(record))],
        evaluation=_rows(scores),
        word_problems=_named(_evaluated_on(results)) if "pass_at_k" in scores else None,
        curve=[row | {"step": _known(point.get("step"))} for point in _ends(curve) for row in _pass_rows(point)],
        example=curve[-1].get("example") if curve else None,
        recipe_yaml=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=110).strip(),
        versions=", ".join(f"{name} {found}" for name, found in record.versions.items()),
    )
    return str(ModelCard(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"))


def eval_results_yaml(stage: str, results: EvaluationRecord | None) -> str | None:
    """`.eval_results/nanohf.yaml`, which feeds a benchmark's leaderboard; None where nothing may claim a place there.

    Only GSM8K can: the Hub takes entries for registered benchmarks, and of our tasks' datasets openai/gsm8k is one. A
    limited evaluation (fewer than all 1,319 test rows) gives none, since it would not be the benchmark's own figure;
    nor does the toy world, which is not on the Hub.
    """
    task = _scores(stage, results).get("tasks", {}).get("nanohf_gsm8k")
    if not task or task.get("n") != GSM8K_TEST_ROWS:
        return None
    notes = "no examples, greedy, with nanohf's calculator"
    entry = EvalResultEntry(
        dataset_id="openai/gsm8k", task_id="gsm8k", value=round(100 * task["value"], 2), notes=notes
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)


def public(record: StageRecord) -> dict:
    """What may be published of a record: what was measured, without the machine, its owner's paths and what logs in."""
    figures = {
        key: value for key, value in asdict(record).items() if key not in PRIVATE and value not in (None, [], {})
    }
    recipe = {key: value for key, value in record.recipe.items() if key not in MACHINE}
    return {"schema_version": SCHEMA_VERSION} | without_paths(without_credentials(figures | {"recipe": recipe}))


def hub_id(name: str | None) -> str | None:
    """The name if it is a Hub id; None for builtin, a folder, an identity file or a stage's name."""
    local = not name or name.endswith((".yaml", ".yml")) or not HUB_ID.fullmatch(name) or Path(name).exists()
    return None if local else name


def _metadata(
    record: StageRecord, public: dict, results: EvaluationRecord | None, repo_id: str, base_model: str | None
) -> ModelCardData:
    stage = record.stage
    figures = _model_index(stage, public, results) if stage != "tokenizer" else []
    used = [source["dataset"] for source in trained_sources(stage, public["recipe"])]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation" if stage != "tokenizer" else None,
        license=card_licence(record).id,
        tags=["nanohf", stage],
        datasets=list(dict.fromkeys(filter(None, map(hub_id, used)))) or None,
        base_model=base_model,
        model_name=repo_id.split("/")[-1] if figures else None,
        eval_results=figures or None,
    )


def _model_index(stage: str, record: dict, results: EvaluationRecord | None) -> list[EvalResult]:
    """Every figure with the data it was measured on. Data that is on no Hub is named, not given an id."""

    def entry(dataset: str, metric: str, value: float, n: int | None = None, config: str | None = None, split="test"):
        return EvalResult(
            task_type="text-generation",
            dataset_type=hub_id(dataset) or dataset,
            dataset_name=_named(dataset),
            dataset_config=config,
            dataset_split=split,
            metric_type=metric.replace(" ", "_"),
            metric_name=f"{metric} (n = {n:,})" if n else metric,
            metric_value=value,
        )

    scores, entries = _scores(stage, results), []
    if "pass_at_k" in scores:
        dataset, measured = _evaluated_on(results), scores["pass_at_k"]
        entries += [entry(dataset, k, measured[k][0], measured["n"]) for k in _ks(measured)]
    elif "after" in record and "metric" in record:
        sources = named_sources(stage, record["recipe"])  # the loss is of conversations only
        held_out = [s["dataset"] for s in sources if s.get("held_out") and s.get("converter") != "document"]
        data = held_out or [s["dataset"] for s in sources]
        name = data[0] if len(set(data)) == 1 else "mixture of " + ", ".join(dict.fromkeys(map(_named, data)))
        split = "validation" if stage == "pretrain" else "test"
        entries.append(entry(name, record["metric"], record["after"], split=split))
    for task, result in scores.get("tasks", {}).items():
        dataset, config = TASK_DATA.get(task, (task, None))
        entries.append(entry(dataset, result["metric"], result["value"], result.get("n"), config))
    return entries


def _licensed(data: DataUsed) -> dict:
    """A line of the card's table of data and licences, all as text."""
    name = _named(without_paths(data.dataset))
    if data.on_hub:
        kind = "datasets/" if data.place == DATASET else ""
        name = f"[{data.dataset}](https://huggingface.co/{kind}{data.dataset})"
    return {
        "name": name,
        "stage": data.stage,
        "licence": f"`{_inline(data.licence)}`",
        "origin": _inline(without_paths(data.origin)),
        "rows": _known(data.rows, "-"),
        "tokens": _known(data.tokens, "-"),
    }


def _described(source: dict) -> str:
    """`[openai/gsm8k](...), main, train, 2 epochs` for the card's list."""
    parts = [_linked(source["dataset"]), source.get("config"), source.get("split", "train")]
    parts += [f"the first {int(source['rows']):,} rows" if source.get("rows") else None]  # an override is a string
    parts += [f"{source['epochs']:g} epochs" if source.get("epochs", 1) != 1 else None]
    parts += ["plain documents, all of their tokens" if source.get("converter") == "document" else None]
    parts += [f"{100 * source['share']:g}% of the tokens" if source.get("share") else None]
    parts += ["held out" if source.get("held_out") else None]
    return ", ".join(filter(None, parts))


def _made_from(recipe: dict, base_model: str | None) -> str:
    source = recipe.get("model_name_or_path", "pretrain")
    if base_model:
        return f"[{base_model}](https://huggingface.co/{base_model})"
    return f"the run's stage `{source}`" if source in STAGES else f"`{_inline(source)}`"


def _linked(dataset: str) -> str:
    return f"[{dataset}](https://huggingface.co/datasets/{dataset})" if hub_id(dataset) else _named(dataset)


def _named(dataset: str) -> str:
    return "nanohf's builtin toy world" if dataset == "builtin" else _inline(dataset)


def _inline(name: str) -> str:
    """A name that can end neither its line nor its code span nor its cell of a table."""
    return " ".join(name.split()).replace("`", "'").replace("|", "/")


def _evaluated_on(results: EvaluationRecord | None) -> str:
    return results.recipe.get("dataset", "builtin") if results else "builtin"


def _scores(stage: str, results: EvaluationRecord | None) -> dict:
    return results.stages.get(stage, {}) if results else {}


def _rows(scores: dict) -> list[dict]:
    """The lines of the evaluation table: what, value, interval, n, all as text."""
    rows = []
    if "bpb" in scores:
        rows.append({"what": "bits per byte", "value": _known(scores["bpb"]), "interval": "-", "n": "-"})
    rows += _pass_rows(scores["pass_at_k"]) if "pass_at_k" in scores else []
    for task, result in scores.get("tasks", {}).items():
        value, stderr = result["value"], result.get("stderr")
        interval = (
            "not measured" if stderr is None else f"[{_known(value - 1.96 * stderr)}, {_known(value + 1.96 * stderr)}]"
        )
        what = f"{task} ({result['metric']})"
        rows.append({"what": what, "value": _known(value), "interval": interval, "n": _known(result.get("n"))})
    return rows


def _pass_rows(measured: dict) -> list[dict]:
    def row(k: str, mean: float, low: float, high: float) -> dict:
        interval = f"[{100 * low:.1f}%, {100 * high:.1f}%]"
        return {"what": k, "value": f"{100 * mean:.1f}%", "interval": interval, "n": f"{measured['n']:,}"}

    return [row(k, *measured[k]) for k in _ks(measured)]


def _ks(measured: dict) -> list[str]:
    """pass@1 and pass@(number of samples)."""
    return [k for k in dict.fromkeys(("pass@1", f"pass@{measured.get('num_samples', 1)}")) if k in measured]


def _ends(curve: list[dict]) -> list[dict]:
    return curve if len(curve) < 2 else [curve[0], curve[-1]]


def _known(value, otherwise: str = "not measured") -> str:
    """A figure for reading: 655,360, 42,870, 0.3198."""
    if value is None or isinstance(value, Undefined):
        return otherwise
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
