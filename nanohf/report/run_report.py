"""report.md: what each stage of a run cost and what it brought, from the records the stages left."""

from pathlib import Path

from nanohf.recipe.stage_names import RESULT_STAGES
from nanohf.runs import run_folder as runs
from nanohf.runs.curves import FILE
from nanohf.runs.stage_record import EvaluationRecord, StageRecord
from nanohf.tokenizer.render import fenced

PHASES = (
    "generation",
    "reward",
    "forward",
    "backward",
    "optimizer",
    "other",
)  # of a grpo step: train.phase_timer


def write_report(run_dir: Path) -> str:
    """Writes run_dir/report.md from the stage.json files and results.json; returns its text."""
    results = runs.evaluated(run_dir)
    records = {stage: record for stage in RESULT_STAGES if (record := runs.done(run_dir, stage))}
    parts = [f"# {run_dir.name}", "", *cost_table(records, results)]
    parts += time_table(records.get("grpo")) + word_problem_table(records.get("grpo"))
    if results:
        parts += ["", *score_table(results), "", "## A held-out problem, greedily", ""]
        parts += [fenced(results.conversation)]
    for stage, record in records.items():
        if record.mixture:
            parts += ["", f"## The mixture of {stage}", "", *mixture_table(record.mixture)]
    if any(record.held_out for record in records.values()):
        parts += ["", "## Held-out sources before and after", "", *held_out_table(records)]
    if drawn := [stage for stage in records if (run_dir / stage / FILE).is_file()]:
        parts += ["", "## Curves"]
        parts += [line for stage in drawn for line in ("", f"![{stage}]({stage}/{FILE})")]
    parts += ["", "## Next steps", "", *commands(run_dir, records)]
    text = "\n".join(parts) + "\n"
    (run_dir / "report.md").write_text(text, encoding="utf-8")
    return text


def cost_table(records: dict[str, StageRecord], results: EvaluationRecord | None) -> list[str]:
    rows = ["| stage | minutes | peak memory | tokens | tokens/s | metric | before | after |"]
    rows += ["|---|--:|--:|--:|--:|---|--:|--:|"]
    total = 0.0
    for stage, r in records.items():
        total += r.minutes
        amount = f"{r.tokens:,}" if r.tokens is not None else f"{r.characters:,} characters"
        speed = f"{r.tokens_per_second:,.0f}" if r.tokens_per_second is not None else ""
        memory = f"{r.peak_memory_bytes / 2**20:,.0f} MiB" if r.peak_memory_bytes else ""
        resumed = " (since resumed)" if r.resumed else ""
        rows.append(
            f"| {stage} | {r.minutes:.1f}{resumed} | {memory} | {amount} | {speed} | {r.metric} "
            f"| {figure(r.metric, r.before)} | {figure(r.metric, r.after)} |"
        )
    if results:
        total += results.minutes
        rows.append(f"| evaluate | {results.minutes:.1f} | | | | | | |")
    return [*rows, f"| all | {total:.1f} | | | | | | |"]


def time_table(grpo: StageRecord | None) -> list[str]:
    """Where grpo's time goes, if it took a step; all its evaluations together, those before and after too."""
    if grpo is None or not grpo.timed_steps:
        return []
    steps, seconds = grpo.timed_steps, grpo.seconds_by_phase
    per_step = {phase: seconds.get(phase, 0) / steps for phase in PHASES}
    return [
        "",
        f"| grpo, {steps:,} steps | {' | '.join(PHASES)} | all of a step | evaluations |",
        "|---|" + "--:|" * (len(PHASES) + 2),
        f"| seconds | {' | '.join(f'{s:.3f}' for s in per_step.values())} | {sum(per_step.values()):.3f} "
        f"| {seconds.get('evaluation', 0):.1f} |",
    ]


def word_problem_table(grpo: StageRecord | None) -> list[str]:
    """Each source of grpo's word problems: how often it was drawn, and pass@k on validation before and after."""
    if grpo is None or not grpo.chosen:
        return []
    first, chosen = grpo.word_problems[0]["sources"], grpo.chosen["sources"]
    best = f"pass@{next(iter(chosen.values()))['num_samples']}"
    measures = list(dict.fromkeys(("pass@1", best)))
    cells = [f"{k} {when}" for k in measures for when in ("before", "after")]
    rows = [
        "",
        f"Validation word problems of grpo; its result is that of step {grpo.chosen['step']:,} of {grpo.steps:,}, "
        "measured on fresh samples.",
        "",
        f"| word problems | groups drawn | their pass rate | n | {' | '.join(cells)} |",
        "|---|--:|--:|--:|" + "--:|" * len(cells),
    ]
    for name, drawn in grpo.drawn.items():
        rate = f"{100 * drawn['pass_rate']:.1f}%" if drawn["groups"] else ""
        scores = [interval(of[name][k]) for k in measures for of in (first, chosen)]
        rows.append(f"| {name} | {drawn['groups']:,} | {rate} | {chosen[name]['n']:,} | {' | '.join(scores)} |")
    return rows


def score_table(results: EvaluationRecord) -> list[str]:
    """Every stage by the same measures; 95% intervals for pass@1, standard errors for tasks."""
    stages = results.stages
    tasks = list(next(iter(stages.values()))["tasks"])
    solved = next(iter(stages.values())).get("word_problems", {})
    samples = next((of["num_samples"] for of in solved.values()), 0)
    sizes = [f"{of['n']}" if len(solved) == 1 else f"{name} {of['n']}" for name, of in solved.items()]
    columns = ["pass@1" if len(solved) == 1 else f"{name} pass@1" for name in solved] + tasks
    head = f"pass@1: {', '.join(sizes)} held-out problems, {samples} samples each, with 95% intervals."
    rows = [
        *([head, ""] if solved else []),
        f"| stage | bits per byte | {' | '.join(columns)} |",
        "|---|--:|" + "--:|" * len(columns),
    ]
    for stage, r in stages.items():
        cells = [f"{r['bpb']:.4f}", *(interval(r["word_problems"][name]["pass@1"]) for name in solved)]
        for task in tasks:
            score = r["tasks"][task]
            error = f" ± {100 * score['stderr']:.1f}" if score["stderr"] is not None else ""
            cells.append(f"{100 * score['value']:.1f}%{error} ({score['metric']}, n = {score['n']})")
        rows.append(f"| {stage} | {' | '.join(cells)} |")
    return rows


def mixture_table(given: list[dict]) -> list[str]:
    """What each source of a mixture gave."""
    total = max(1, sum(g["tokens"] for g in given))
    lines = ["| source | rows | tokens | share | trained | cut | left out |", "|---|--:|--:|--:|--:|--:|---|"]
    for g in given:
        left_out = [f"{g['malformed']:,} malformed: {g['reason']}"] if g["malformed"] else []
        left_out += [f"{g['untrained']:,} with nothing to train within max_length"] if g["untrained"] else []
        share = f"{100 * g['tokens'] / total:.1f}%"
        figures = f"{g['rows']:,} | {g['tokens']:,} | {share} | {g['trained']:,} | {g['cut']:,}"
        lines.append(f"| {g['name']} | {figures} | {'; '.join(left_out)} |")
    return lines


def held_out_table(records: dict[str, StageRecord]) -> list[str]:
    """Nats per token, of documents bits per byte; each stage's begin is the result of the one before it."""
    stages = {stage: record.held_out for stage, record in records.items() if record.held_out}
    figures: dict[tuple[str, str], dict[str, str]] = {
        (f["source"], f["metric"]): {} for changes in stages.values() for f in changes
    }
    for stage, changes in stages.items():
        for f in changes:
            figures[f["source"], f["metric"]][stage] = f"{f['before']:.4f} -> {f['after']:.4f}"
    lines = [f"| source | measure | {' | '.join(stages)} |", "|---|---|" + "--:|" * len(stages)]
    for (source, metric), by_stage in figures.items():
        lines.append(f"| {source} | {metric} | {' | '.join(by_stage.get(stage, '') for stage in stages)} |")
    return lines


def commands(run_dir: Path, records: dict[str, StageRecord]) -> list[str]:
    models = [stage for stage in records if stage != "tokenizer"]
    if not models:
        return []
    return [
        "```bash",
        f"nanohf chat {run_dir}",
        f"nanohf push {run_dir} --to USER/NAME",
        "```",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{run_dir / models[-1]}", trust_remote_code=True)',
        "```",
    ]


def figure(metric: str, value: float) -> str:
    return f"{100 * value:.1f}%" if metric == "pass@1" else f"{value:.4g}"


def interval(measured: list[float]) -> str:
    """`41.2% [38.0, 44.4]`."""
    mean, low, high = (100 * value for value in measured)
    return f"{mean:.1f}% [{low:.1f}, {high:.1f}]"
