"""Why GRPO learns nothing or unlearns: before it starts, while the reward does not rise, and when variety is lost."""

from statistics import fmean

from transformers import TrainerCallback

from nanohf import console
from nanohf.evals.pass_at_k import paired_change

STEPS = 40  # a verdict looks back over so many, and over at least so many logs:
LOGS = 8
LEAST_SPREAD = 0.05  # of the groups; below it a step of 16 word problems has less than one that teaches
COLLAPSED = 0.2  # of the entropy at the beginning


class Diagnosis(TrainerCallback):
    """Looks at the trainer's own log history, which a resumed run has too. A window is warned of once."""

    def __init__(self):
        self.said = 0
        self.said_collapsed = False

    def on_log(self, args, state, control, logs=None, **kwargs):
        window = max(LOGS, STEPS // max(1, int(args.logging_steps)))
        recent = [log for log in state.log_history if "reward" in log and log["step"] > self.said][-window:]
        if len(recent) == window and (cause := likely_cause(recent)):
            reward = fmean(log["reward"] for log in recent)
            console.warning(f"reward {reward:.3f} on average, not rising since step {recent[0]['step']:,}. {cause}")
            self.said = state.global_step
        entropies = [log["entropy"] for log in state.log_history if "entropy" in log]
        if not self.said_collapsed and (said := collapsed(entropies, window)):
            console.warning(f"step {state.global_step:,}: {said}")
            self.said_collapsed = True


def spread(result: dict) -> float:
    """The share of groups with right and wrong completions: the others' advantages are 0. result: of `score`."""
    return round(1 - result["always_right"] - result["always_wrong"], 9)


def too_little_spread(result: dict) -> str | None:
    """Why training would teach next to nothing, and what to do. result: of `score`, with groups as in training."""
    if spread(result) >= LEAST_SPREAD:
        return None
    wrong, right, samples = result["always_wrong"], result["always_right"], result["num_samples"]
    said = (
        f"only {spread(result):.0%} of {result['n']} groups of {samples} completions have right and wrong ones, and "
        f"only those teach (at least {LEAST_SPREAD:.0%} should): all are wrong in {wrong:.0%}, right in {right:.0%}. "
    )
    if right > wrong:
        return said + "The word problems are too easy: take harder ones, or leave grpo out."
    if result["finished"] < 0.5:
        return said + f"{1 - result['finished']:.0%} of the completions are cut off: raise max_completion_length."
    return said + (
        "The model cannot do the task yet: train sft longer or on word problems like these, take easier ones "
        "(word_problems lists several sources), or raise num_generations."
    )


def collapsed(entropies: list[float], window: int) -> str | None:
    """Whether the recent logs' entropy is a small part of the first ones', and the likely cause."""
    if len(entropies) < 2 * window:
        return None
    first, last = fmean(entropies[:window]), fmean(entropies[-window:])
    if last >= COLLAPSED * first:
        return None
    return (
        f"entropy fell from {first:.3f} to {last:.3f}: the samples of a group are nearly the same, and little is left "
        "to learn from. The learning rate is likely too large, or nothing holds the model near its start: lower "
        "lr_scale, or raise beta (0.01) or temperature."
    )


def fallen(before: dict, now: dict) -> str | None:
    """Whether pass@k is lower than it was, beyond chance, and the likely cause. Points of the curve of pass@k."""
    first, last = ([n for of in point["sources"].values() for n in of["right"]] for point in (before, now))
    change, low, high = paired_change(first, last)
    if high >= 0:
        return None
    k = next(iter(now["sources"].values()))["num_samples"]
    cause = (
        "The model gives up answers that it had for the one it gives most often: the learning rate is likely too "
        "large, or it sees the same word problems too often. Lower lr_scale, raise beta (0.01), or add word problems."
        if now["pass@1"] >= before["pass@1"]
        else "So did pass@1: the learning rate is likely too large. Lower lr_scale."
    )
    return (
        f"pass@{k} fell by {-100 * change:.1f} points since step {before['step']:,} (95% interval of the change, word "
        f"problem by word problem: {100 * low:.1f} to {100 * high:.1f}). {cause}"
    )


def likely_cause(logs: list[dict]) -> str | None:
    """What keeps the reward of these logs from rising, and a remedy. None: it rises, or no cause is plain."""
    half = len(logs) // 2

    def mean(key: str, of: list[dict] = logs) -> float:
        return fmean(log[key] for log in of)

    gain = mean("reward", logs[half:]) - mean("reward", logs[:half])
    if gain >= 0.01:
        return None
    wrong, right, cut = mean("groups/all_wrong"), mean("groups/all_right"), mean("completions/clipped_ratio")
    if cut > 0.5:
        return (
            f"{cut:.0%} of the completions are cut off: raise max_completion_length, as far as the model's context "
            "goes (max_position_embeddings, question included)."
        )
    if wrong > 0.8:
        return (
            f"In {wrong:.0%} of the groups all are wrong: the model cannot do the task yet. Train sft longer or on "
            "more word problems like these, take easier ones, or raise num_generations."
        )
    if right > 0.8:
        return (
            f"In {right:.0%} of the groups all are right: the word problems are too easy. Take harder ones or "
            "stop here."
        )
    if wrong + right > 0.8:
        return (
            f"In {wrong + right:.0%} of the groups all are right or all wrong (entropy {mean('entropy'):.2f}): "
            "there is no spread to learn from. Raise num_generations or temperature, or set skip_settled."
        )
    if gain < -0.1:
        return f"It falls by {-gain:.2f}: the learning rate is likely too large. Lower lr_scale or learning_rate."
    return None
