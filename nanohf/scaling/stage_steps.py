"""The steps and tokens of a recipe's mixture and word problems. What the recipe leaves open is assumed, and named."""

from dataclasses import dataclass

from nanohf.scaling.horizon import Stage, StageInputs, ceil_div, rl_steps

ROWS = {  # of sources that recipes take whole; nanochat's figures, GSM8K's exact
    "HuggingFaceTB/smol-smoltalk train": 460_000,
    "cais/mmlu all auxiliary_train": 100_000,
    "openai/gsm8k main train": 7_473,
    "allenai/ai2_arc ARC-Easy train": 2_300,
    "allenai/ai2_arc ARC-Challenge train": 1_100,
}
TOKENS_PER_ROW = StageInputs.mean_row_tokens
ROW_TOKENS = {  # measured, of the toy world with the demo's tokenizer of 1,024, of the others with d2's of 2,048
    "builtin problems train": 95,
    "builtin conversations train": 51,
    "builtin school_problems train": 90,
    "builtin small_talk train": 45,
    "builtin spelling train": 38,
    "builtin letter_counting train": 101,
    "roneneldan/TinyStories train": 236,
    "openai/gsm8k main train": 265,
    "identity.yaml": 66,
}


@dataclass(frozen=True)
class Part:
    """One source of a mixture: rows (None: all there are), how often, or the share of all tokens that it is to have."""

    name: str
    rows: int | None = None
    epochs: float = 1.0
    share: float = 0.0


def chat_stage(
    name: str, parts: list[Part], rows_per_step: int, max_length: int | None, epochs: float = 1.0, max_steps: int = -1
) -> tuple[Stage, list[str]]:
    """Midtraining or SFT, and what was assumed. max_length: of packed rows; None: not packed."""
    assumed, rows, tokens = [], 0, 0
    share = sum(part.share for part in parts)
    for part in (p for p in parts if not p.share):
        if (count := ROWS.get(part.name) if part.rows is None else part.rows) is None:
            assumed.append(f"{name}: {part.name} is not counted, because the recipe does not give its rows")
            continue
        if part.rows is None:
            assumed.append(f"{name}: {part.name} has {count:,} rows")
        seen = round(count * part.epochs)
        rows, tokens = rows + seen, tokens + seen * ROW_TOKENS.get(part.name, TOKENS_PER_ROW)
    if unknown := [part.name for part in parts if part.name not in ROW_TOKENS and not part.share]:
        assumed.append(f"{name}: {TOKENS_PER_ROW} tokens per row of {', '.join(unknown)}")
    if any(part.name in ROW_TOKENS for part in parts):
        assumed.append(
            f"{name}: the other sources' rows are as long as with a vocabulary of 2,048, the toy world's of 1,024"
        )
    whole = round(tokens / (1 - share) * epochs)
    of = f"{rows:,} rows" + (f" and {share:.0%} documents" if share else "") + (f" x {epochs:g}" if epochs != 1 else "")
    if max_length:
        batch_tokens = rows_per_step * max_length
        steps = ceil_div(whole, batch_tokens)
        steps_from = f"ceil({whole:,} tokens ({of}) / {batch_tokens:,} tokens per step)"
    else:
        all_rows = round(rows / (1 - share) * epochs)
        steps, steps_from = (
            ceil_div(all_rows, rows_per_step),
            f"ceil({all_rows:,} rows ({of}) / {rows_per_step:,} per step)",
        )
    if max_steps > 0:
        return Stage(name, max_steps, round(whole * max_steps / max(1, steps)), "max_steps", f"of {of}"), assumed
    return Stage(name, steps, whole, steps_from, of), assumed


def problem_stage(
    parts: list[Part], per_step: int, completions: int, length: int, epochs: float = 1.0, max_steps: int = -1
) -> tuple[Stage, list[str]]:
    """GRPO, and what was assumed. parts: their epochs are the share that is trained on; length: of a completion."""
    counts = {part.name: ROWS.get(part.name) if part.rows is None else part.rows for part in parts}
    unknown, assumed = [name for name, rows in counts.items() if rows is None], []
    if max_steps > 0:
        steps, steps_from = max_steps, "max_steps"
    elif unknown:
        many = f"unknown, because the recipe does not say how many word problems {unknown[0]} has"
        return Stage("grpo", None, None, many), []
    else:
        count = sum(round((counts[part.name] or 0) * part.epochs) for part in parts)
        steps = round(rl_steps(count, per_step) * epochs)
        steps_from = f"{count:,} problems // {per_step:,} per step x {epochs:g} epoch(s)"
        assumed += [f"grpo: {p.name} has {counts[p.name]:,} problems" for p in parts if p.rows is None]
    step_tokens = per_step * completions * length
    made_of = f"at most {steps:,} steps x {per_step:,} problems x {completions:,} completions x {length:,} tokens"
    return Stage("grpo", steps, steps * step_tokens, steps_from, made_of), assumed
