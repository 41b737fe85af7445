"""What a model costs before it is trained: `nanohf plan recipes/d4`, `--depth 4 --vocab-size 4096`, or `--table`."""

import socket
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, fields
from pathlib import Path

from nanohf import console
from nanohf.errors import RecipeError
from nanohf.runs.ledger import Speed, last_speeds
from nanohf.scaling import horizon
from nanohf.scaling import parameters as counts
from nanohf.scaling.horizon import CHARS_PER_TOKEN, Pretraining, Stage, StageInputs
from nanohf.scaling.memory import Bytes, memory
from nanohf.scaling.parameters import Parameters

TABLE_DEPTHS = (1, 2, 3, 4, 6, 10, 20)
TABLE_VOCAB_SIZES = (65_536, 12_288)  # nanochat's of 2025-11; what makes d3 about 6M and d1 1.6M


@dataclass(frozen=True)
class Plan:
    depth: int
    vocab_size: int
    preset: str
    hidden_size: int
    num_attention_heads: int
    parameters: Parameters
    pretraining: Pretraining
    chars_per_token: float
    characters: int
    shards: int
    stages: dict[str, Stage]
    memory: dict[str, Bytes]
    assumed: tuple[str, ...]  # where a recipe does not say
    card: tuple[str, ...]  # the hardware's name, and a line for each stage


def make_plan(
    depth: int,
    vocab_size: int = 65_536,
    preset: str = "classic",
    *,
    chars_per_token: float = CHARS_PER_TOKEN,
    inputs: StageInputs | None = None,
    num_attention_heads: int | None = None,
    stages: tuple[Stage, ...] = (),
    assumed: tuple[str, ...] = (),
    card: tuple[str, ...] = (),
    **pretraining,
) -> Plan:
    """Every number that follows from the dials; `render` prints them with their inputs.

    Args:
        depth: number of layers, at least 1; the width is 64 times that.
        vocab_size: tokens in the vocabulary.
        preset: "classic" or "modern", as in `NanoHFConfig.from_depth`.
        chars_per_token: characters per token, from which the text to download follows.
        inputs: what the stages after pretraining read; None: nanochat's.
        num_attention_heads: None for the rule's.
        stages: a recipe's own, in place of what follows from `inputs`.
        assumed: lines for what a recipe does not say.
        card: the hardware's name and lines on what fits it.
        pretraining: as in `horizon.pretraining`.

    Raises:
        ValueError: a dial that is not positive, or an unknown preset.

    Sources of the rules stand beside them in `nanohf.scaling`.
    """
    parameters = counts.parameters(depth, vocab_size, preset, num_attention_heads)
    pretrain = horizon.pretraining(parameters, **pretraining)
    chars = horizon.characters(pretrain.tokens, chars_per_token)
    return Plan(
        depth=depth,
        vocab_size=vocab_size,
        preset=preset,
        hidden_size=counts.hidden_size(depth),
        num_attention_heads=num_attention_heads or counts.num_attention_heads(depth),
        parameters=parameters,
        pretraining=pretrain,
        chars_per_token=chars_per_token,
        characters=chars,
        shards=horizon.shards(chars),
        stages=horizon.stages(pretrain, inputs or StageInputs()) | {stage.name: stage for stage in stages},
        memory=memory(parameters),
        assumed=assumed,
        card=card,
    )


def render(plan: Plan, speeds: dict[str, Speed]) -> str:
    """The plan as text for the terminal: every derived number with its inputs."""
    sections = {
        f"plan: depth {plan.depth}, vocabulary {plan.vocab_size:,}, {plan.preset}": model_lines(plan),
        "parameters": parameter_lines(plan),
        "pretraining": text_lines(plan),
        "steps": step_lines(plan),
        "bytes on one process, fp32, without activations": memory_lines(plan),
        f"memory of one process on {plan.card[0] if plan.card else ''}, at its peak": plan.card[1:],
        "minutes": minute_lines(plan, speeds),
        "assumed, for the recipe does not say": plan.assumed,
    }
    return "\n\n".join("\n  ".join([title, *lines]) for title, lines in sections.items() if lines)


def model_lines(plan: Plan) -> list[str]:
    width, heads, start = plan.hidden_size, plan.num_attention_heads, counts.heads_before_rounding(plan.depth)
    raised = f"the first count that divides {width:,} into an even head size, from {start} = "
    rule = f"{raised if heads > start else ''}max(1, ({width:,} + 127) // 128)"
    rule = rule if heads == counts.num_attention_heads(plan.depth) else "the recipe's"
    return [
        f"hidden_size: {width:,} = 64 x {plan.depth}",
        f"num_attention_heads: {heads} = {rule}",
        f"head size: {width // heads} = {width:,} / {heads}",
    ]


def parameter_lines(plan: Plan) -> list[str]:
    p, v, c, d = plan.parameters, f"{plan.vocab_size:,}", f"{plan.hidden_size:,}", plan.depth
    rows = [
        ("embedding", p.embedding, f"{v} x {c}"),
        ("lm_head", p.lm_head, f"{c} x {v}"),
        ("attention", p.attention, f"{d} x 4 x {c}^2"),
        ("mlp", p.mlp, f"{d} x 8 x {c}^2"),
    ]
    if plan.preset == "modern":
        layers = (d + 1) // 2
        rows += [
            ("value embeddings", p.value_embeddings, f"{layers} x {v} x {c}"),
            ("value gates", p.value_gates, f"{layers} x 12 x {plan.num_attention_heads}"),
            ("scalars", p.scalars, f"2 x {d}"),
            ("total", p.total, "the sum of these"),
            ("scaling", p.scaling, "attention + mlp + value gates + lm_head"),
        ]
    else:
        rows += [
            ("total", p.total, "the sum of these"),
            ("formula", counts.closed_formula(d, plan.vocab_size), f"2 x {v} x {c} + 12 x {d} x {c}^2"),
            ("scaling", p.scaling, "attention + mlp + lm_head"),
        ]
    width = max(len(f"{number:,}") for _, number, _ in rows)
    names = max(10, *(len(name) for name, *_ in rows))
    return [f"{name:<{names}} {number:>{width},} = {formula}" for name, number, formula in rows]


def text_lines(plan: Plan) -> list[str]:
    p, c = plan.pretraining, plan.characters
    is_default = plan.chars_per_token == CHARS_PER_TOKEN
    source = " (nanochat's at 65,536; a smaller vocabulary has fewer)" if is_default else ""
    return [
        f"horizon: {p.tokens:,} tokens = {p.tokens_from}",
        f"characters: {c:,} = {p.tokens:,} tokens x {plan.chars_per_token} per token{source}",
        f"shards: {plan.shards:,} = ceil({c:,} / {horizon.CHARS_PER_SHARD:,} characters per shard)",
        f"batch: {p.batch_tokens:,} tokens per step = {p.batch_from}",
        f"learning rates: x {p.lr_scale:.3g} = {p.lr_from}",
    ]


def step_lines(plan: Plan) -> list[str]:
    def steps(stage: Stage) -> str:
        return f"{'none':>9}, " if stage.steps is None else f"{stage.steps:>9,} = "

    return [f"{stage.name:<10} {steps(stage)}{stage.steps_from}" for stage in plan.stages.values()]


def memory_lines(plan: Plan) -> list[str]:
    columns = [field.name for field in fields(Bytes)] + ["total"]
    rows = [[part, *(f"{getattr(size, c):,}" for c in columns)] for part, size in plan.memory.items()]
    return [
        *align([["", *columns], *rows]),
        "a parameter: weights 4, gradients 4, optimizer 8 with AdamW (embeddings, lm_head, scalars: two moments)",
        "or 4 with Muon (the other matrices: one momentum)",
    ]


def minute_lines(plan: Plan, speeds: dict[str, Speed]) -> list[str]:
    if not speeds:
        return ["no run on this machine yet to take the speed from. Run: nanohf run recipes/demo"]
    return [f"{name:<10} {minutes(plan, stage, speeds.get(name))}" for name, stage in plan.stages.items()]


def minutes(plan: Plan, stage: Stage, last: Speed | None) -> str:
    """Minutes of a stage from its last run here, taking the time per token as proportional to the parameters."""
    if last is None:
        return "unknown: it has not run on this machine yet. Run: nanohf run recipes/demo"
    measured = last.minutes if stage.tokens is None else last.tokens_per_second
    if measured is None:
        return "unknown: its last run here recorded no time. Run: nanohf run recipes/demo"
    total, device = plan.parameters.total, f" ({last.device})" if last.device else ""
    if stage.name == "tokenizer":
        return f"{last.minutes:,.1f} = the last run's, on its text; no model in it{device}"
    if last.parameters is None:
        return "unknown: its last run here recorded no parameters. Run: nanohf run recipes/demo"
    origin = f"depth {last.depth}" if last.depth else f"{last.parameters:,} parameters"
    if last.depth == plan.depth and last.vocab_size:
        origin += f" with vocabulary {last.vocab_size:,}"
    scaled = "" if last.parameters == total else f", scaled from {origin}"
    if stage.tokens is None:
        ratio = f" x {total:,} / {last.parameters:,} parameters" if scaled else ""
        estimate = measured * total / last.parameters
        return f"{estimate:,.1f} = {measured:,.1f} of the last run{ratio}{scaled}{device}"
    rate = measured * last.parameters / total
    ratio = f" ({measured:,.0f} x {last.parameters:,} / {total:,} parameters)" if scaled else ""
    tokens = f"{stage.tokens:,} tokens ({stage.tokens_from})"
    return f"{stage.tokens / rate / 60:,.1f} = {tokens} / {rate:,.0f} tokens/s{ratio}{scaled}{device}"


def table(vocab_sizes: tuple[int, ...] = TABLE_VOCAB_SIZES) -> str:
    """The ladder of depths: exact parameters by the formula at every vocabulary."""
    header = ["depth", "hidden_size", "heads", *(f"parameters at {v:,}" for v in vocab_sizes)]
    rows = [
        [str(d), f"{counts.hidden_size(d):,}", str(counts.num_attention_heads(d))]
        + [f"{counts.parameters(d, v).total:,}" for v in vocab_sizes]
        for d in TABLE_DEPTHS
    ]
    return "\n".join(align([header, *rows]))


def align(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def add_arguments(parser: ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("recipe_dir", nargs="?", help="a folder of recipes to plan, such as recipes/d4")
    what.add_argument("--depth", type=int, metavar="N", help="plan a model of N layers")
    what.add_argument("--table", action="store_true", help="parameters of depths 1 to 20 instead")
    parser.add_argument("--vocab-size", type=int, metavar="V", help="(default: 65536)")
    parser.add_argument("--preset", choices=counts.PRESETS, help="(default: classic)")
    parser.add_argument("--hardware", metavar="CARD[xN]", help="whether a recipe's stages fit it, such as l4 or h100x8")
    parser.add_argument(
        "--batch-tokens",
        type=int,
        metavar="B",
        help="tokens of a pretraining step (default: by the horizon)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="run folders whose ledgers give this machine's speed (default: %(default)s)",
    )


def main(args: Namespace, recipe: dict | None = None) -> int:
    """recipe: what `plan` takes, read from the recipe folder."""
    dials = {name: getattr(args, name) for name in ("vocab_size", "preset", "batch_tokens")}
    dials = {name: value for name, value in dials.items() if value is not None}
    if args.hardware and not recipe:
        raise RecipeError(f"--hardware {args.hardware} is for a recipe: nanohf plan recipes/d12 --hardware l4")
    try:
        if args.table:
            console.result(table(tuple(dict.fromkeys((*TABLE_VOCAB_SIZES, *filter(None, [args.vocab_size]))))))
            return 0
        if recipe and dials:
            raise ValueError(f"the recipes say {', '.join(dials)}; leave it out, or plan with --depth")
        planned = make_plan(**recipe) if recipe else make_plan(args.depth, **dials)
        console.result(render(planned, last_speeds(args.runs, socket.gethostname())))
    except ValueError as error:
        raise RecipeError(str(error)) from error
    return 0
