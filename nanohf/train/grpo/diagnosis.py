"""Why GRPO learns nothing: a warning with the likely cause while the reward does not rise."""

from statistics import fmean

from transformers import TrainerCallback

from nanohf import console

STEPS = 40  # a verdict looks back over so many, and over at least so many logs:
LOGS = 8


class Diagnosis(TrainerCallback):
    """Looks at the trainer's own log history, which a resumed run has too. A window is warned of once."""

    def __init__(self):
        self.said = 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        window = max(LOGS, STEPS // max(1, int(args.logging_steps)))
        recent = [log for log in state.log_history if "reward" in log and log["step"] > self.said][-window:]
        if len(recent) == window and (cause := likely_cause(recent)):
            reward = fmean(log["reward"] for log in recent)
            console.warning(f"reward {reward:.3f} on average, not rising since step {recent[0]['step']:,}. {cause}")
            self.said = state.global_step


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
