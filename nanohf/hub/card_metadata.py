"""What a card says to the Hub: the metadata at its head, and the entries for benchmarks in `.eval_results`."""

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from nanohf.data.licence_lookup import LANGUAGE
from nanohf.data.word_problem_source import label
from nanohf.hub.card_text import hub_id, one_line
from nanohf.hub.licensing import card_licence
from nanohf.runs.data_used import named_sources, recorded, trained_sources
from nanohf.runs.stage_record import EvaluationRecord, StageRecord

# lm-eval task -> Hub dataset, configuration. Other tasks are named by the harness's name.
TASK_DATA = {
    "nanohf_gsm8k": ("openai/gsm8k", "main"),
    "nanohf_mmlu": ("cais/mmlu", "all"),
    "nanohf_arc_easy": ("allenai/ai2_arc", "ARC-Easy"),
    "nanohf_arc_challenge": ("allenai/ai2_arc", "ARC-Challenge"),
}
GSM8K_TEST_ROWS = 1319


def metadata(
    record: StageRecord, public: dict, results: EvaluationRecord | None, repo_id: str, base_model: str | None
) -> ModelCardData:
    """public: what may be published of the record; base_model: the Hub id of what the stage was made from."""
    stage = record.stage
    figures = _model_index(stage, public, results) if stage != "tokenizer" else []
    used = [source["dataset"] for source in trained_sources(stage, public["recipe"])]
    languages = {language for data in recorded(record) for language in data.languages if LANGUAGE.fullmatch(language)}
    return ModelCardData(
        language=sorted(languages) or None,
        library_name="transformers",
        pipeline_tag="text-generation" if stage != "tokenizer" else None,
        license=card_licence(record).id,
        tags=["nanohf", stage],
        datasets=list(dict.fromkeys(filter(None, map(hub_id, used)))) or None,
        base_model=base_model,
        model_name=repo_id.split("/")[-1] if figures else None,
        eval_results=figures or None,
    )


def eval_results_yaml(stage: str, results: EvaluationRecord | None) -> str | None:
    """`.eval_results/nanohf.yaml`, which feeds a benchmark's leaderboard; None where nothing may claim a place there.

    Only GSM8K can: the Hub takes entries for registered benchmarks, and of our tasks' datasets openai/gsm8k is one. A
    limited evaluation (fewer than all 1,319 test rows) gives none, since it would not be the benchmark's own figure;
    nor does the toy world, which is not on the Hub.
    """
    task = scores_of(stage, results).get("tasks", {}).get("nanohf_gsm8k")
    if not task or task.get("n") != GSM8K_TEST_ROWS:
        return None
    notes = "no examples, greedy, with nanohf's calculator"
    entry = EvalResultEntry(
        dataset_id="openai/gsm8k", task_id="gsm8k", value=round(100 * task["value"], 2), notes=notes
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)


def scores_of(stage: str, results: EvaluationRecord | None) -> dict:
    return results.stages.get(stage, {}) if results else {}


def evaluated_on(results: EvaluationRecord | None) -> dict[str, str]:
    """The dataset of each source of word problems, by the source's name."""
    recipe = results.recipe if results else {}
    sources = recipe.get("word_problems") or [{"dataset": recipe.get("dataset", "builtin")}]
    return {label(source["dataset"], source.get("name")): source["dataset"] for source in sources}


def pass_keys(measured: dict) -> list[str]:
    """pass@1 and pass@(number of samples)."""
    return [k for k in dict.fromkeys(("pass@1", f"pass@{measured.get('num_samples', 1)}")) if k in measured]


def _model_index(stage: str, record: dict, results: EvaluationRecord | None) -> list[EvalResult]:
    """Every figure with the data it was measured on. Data that is on no Hub is named, not given an id."""

    def entry(dataset: str, metric: str, value: float, n: int | None = None, config: str | None = None, split="test"):
        return EvalResult(
            task_type="text-generation",
            dataset_type=hub_id(dataset) or one_line(dataset),
            dataset_name=_plainly(dataset),
            dataset_config=config,
            dataset_split=split,
            metric_type=one_line(metric).replace(" ", "_"),
            metric_name=one_line(f"{metric} (n = {n:,})" if n else metric),
            metric_value=value,
        )

    scores, entries = scores_of(stage, results), []
    if solved := scores.get("word_problems"):
        datasets = evaluated_on(results)
        entries += [
            entry(datasets.get(name, name), k, of[k][0], of["n"]) for name, of in solved.items() for k in pass_keys(of)
        ]
    elif "after" in record and "metric" in record:
        sources = named_sources(stage, record["recipe"])  # the loss is of conversations only
        held_out = [s["dataset"] for s in sources if s.get("measured") and s.get("converter") != "document"]
        data = held_out or [s["dataset"] for s in sources]
        name = data[0] if len(set(data)) == 1 else "mixture of " + ", ".join(dict.fromkeys(map(_plainly, data)))
        split = "validation" if stage in ("pretrain", "grpo") else "test"
        entries.append(entry(name, record["metric"], record["after"], split=split))
    for task, result in scores.get("tasks", {}).items():
        dataset, config = TASK_DATA.get(task, (task, None))
        entries.append(entry(dataset, result["metric"], result["value"], result.get("n"), config))
    return entries


def _plainly(dataset: str) -> str:
    return "nanohf's builtin toy world" if dataset == "builtin" else one_line(dataset)
