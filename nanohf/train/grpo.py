"""Between TRL's GRPOTrainer and our engine: the rollout function, the reward, and pass@k on the way."""

import json
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from transformers import TrainerCallback

from nanohf.data.gsm8k import is_correct
from nanohf.data.problems import prompt_ids

from .progress import say


def rollout_func(engine, args) -> Callable:
    """For GRPOTrainer: our engine. Each distinct prompt is read once for its whole group of samples.

    `env_mask`, 0 where the engine forced the token, keeps the calculator's output out of the loss. Seeds
    follow the step, so that a resumed run draws what an uninterrupted one would have drawn.
    """
    drawn = {"step": -1, "count": 0}

    def rollout(prompts: list, trainer) -> dict:
        step = trainer.state.global_step
        drawn.update(step=step, count=drawn["count"] + 1 if drawn["step"] == step else 0)
        seed = ((args.seed * 1_000_003 + step) * 101 + drawn["count"]) * 257 + trainer.accelerator.process_index

        groups = [(prompt, len(list(same))) for prompt, same in groupby(prompts)]
        sizes = {size for _, size in groups}
        distinct, samples = ([p for p, _ in groups], sizes.pop()) if len(sizes) == 1 else (prompts, 1)
        ids = [prompt_ids(engine.tokenizer, prompt) for prompt in distinct]
        completions = engine.generate(ids, samples, args.max_completion_length, args.temperature, args.top_k, seed=seed)
        flat = [completion for group in completions for completion in group]
        return {
            "prompt_ids": [p for p in ids for _ in range(samples)],
            "completion_ids": [c.ids for c in flat],
            "env_mask": [c.chosen for c in flat],
            "logprobs": None,
        }

    return rollout


def correct_answer(tokenizer) -> Callable:
    """The reward: 1 if the number after #### is the problem's, else 0. Reads ids: TRL's text lacks special tokens."""

    def reward(completion_ids: list[list[int]], answer: list[str], **_) -> list[float]:
        return [
            float(is_correct(tokenizer.decode(ids), right)) for ids, right in zip(completion_ids, answer, strict=True)
        ]

    return reward


class PassAtK(TrainerCallback):
    """Measures every `every` steps; `measure()` gives what `nanohf.evals.pass_at_k.score` gives.

    Results are in `curve` by step, and in a file beside the checkpoints, so that a resumed run has those from before.
    """

    def __init__(self, measure: Callable[[], dict], every: int, describe: Callable, progress, file: Path):
        self.measure, self.every, self.describe, self.progress, self.file = measure, every, describe, progress, file
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        self.curve: dict[int, dict] = {result["step"]: result for result in map(json.loads, lines)}

    def now(self, step: int) -> dict:
        """The result at this step, measured unless it is known."""
        if step not in self.curve:
            started = time.perf_counter()
            with self.progress.paused():
                self.curve[step] = self.measure() | {"step": step}
            self.curve[step]["seconds"] = time.perf_counter() - started
            self.file.write_text("".join(json.dumps(r) + "\n" for r in self.curve.values()), encoding="utf-8")
        say(f"step {step:,} | {self.describe(self.curve[step])}")
        return self.curve[step]

    def on_train_begin(self, args, state, control, **kwargs):
        """What a killed run measured after its last checkpoint is measured again."""
        self.curve = {step: result for step, result in self.curve.items() if step <= state.global_step}

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            self.now(state.global_step)
