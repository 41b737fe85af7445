"""Between TRL's GRPOTrainer and our engine: the rollout function, the reward, and pass@k on the way."""

import time
from collections.abc import Callable
from itertools import groupby

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
    """Measures every `every` steps. `measure()` gives what `nanohf.evals.pass_at_k.score` gives; results in `curve`."""

    def __init__(self, measure: Callable[[], dict], every: int, describe: Callable[[dict], str]):
        self.measure, self.every, self.describe = measure, every, describe
        self.curve: list[dict] = []
        self.seconds = 0.0

    def now(self, step: int) -> dict:
        started = time.perf_counter()
        result = self.measure() | {"step": step}
        self.seconds += time.perf_counter() - started
        self.curve.append(result)
        say(f"step {step:,} | {self.describe(result)}")
        return result

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            self.now(state.global_step)
