"""Between TRL's GRPOTrainer and our engine: the trainer, the rollout function, the reward, and pass@k on the way."""

import json
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from transformers import TrainerCallback
from trl import GRPOTrainer

from nanohf import console
from nanohf.data.gsm8k import is_correct
from nanohf.data.word_problems import prompt_ids
from nanohf.errors import RecipeError
from nanohf.runs import run_folder as runs
from nanohf.tokenizer.render import readable
from nanohf.train.grpo.word_problem_order import ProblemOrder
from nanohf.train.phase_timer import Clock
from nanohf.train.trainer_guards import GuardedTrainer


class ProblemTrainer(GuardedTrainer, GRPOTrainer):
    """TRL's trainer, which times its phases, logs what its groups are like and draws problems in our order.

    Phases: generation, reward, forward (with the loss), backward, optimizer, evaluation; all else is `other`: data,
    padding, advantages, clipping, logs, checkpoints.
    """

    def __init__(self, *, args, train_dataset, skip_settled: float = 0.0, **kwargs):
        per_generation = args.steps_per_generation * args.num_iterations
        self.order = ProblemOrder(
            problems=len(train_dataset),
            size=args.generation_batch_size // args.num_generations,
            samples=args.num_generations,
            repeats=per_generation,
            seed=args.seed,
            shuffle=args.shuffle_dataset,
            skip_settled=skip_settled,
            ahead=max(1, args.gradient_accumulation_steps // per_generation),
        )
        super().__init__(args=args, train_dataset=train_dataset, **kwargs)
        self.clock = Clock(self.accelerator.device)
        self.add_callback(self.clock)
        self.add_callback(self.order)

    def _get_train_sampler(self, dataset=None):
        return self.order

    def training_step(self, model, inputs, num_items_in_batch=None):
        with self.clock.phase("backward"):
            return super().training_step(model, inputs, num_items_in_batch)

    def _prepare_inputs(self, generation_batch):
        with self.clock.phase("other"):
            return super()._prepare_inputs(generation_batch)

    def _generate(self, prompts):
        with self.clock.phase("generation"):
            return super()._generate(prompts)

    def compute_loss(self, *args, **kwargs):
        with self.clock.phase("forward"):
            return super().compute_loss(*args, **kwargs)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """The rewards of all processes, (completions, 1), group by group."""
        with self.clock.phase("reward"):
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        rates = rewards.view(-1, self.num_generations).mean(1).tolist()
        self.order.rates.append(rates)
        self._log_metric("groups/all_wrong", rates.count(0) / len(rates))
        self._log_metric("groups/all_right", rates.count(1) / len(rates))
        for name in ("calls", "refused"):
            if name in inputs[0]:
                self._log_metric(f"calculator/{name}", sum(row[name] for row in inputs) / len(inputs))
        return rewards

    def log(self, logs, start_time=None):
        if "loss" in logs:
            logs |= self.clock.lap(self.state.global_step)
        super().log(logs, start_time)


def refuse_nanohf(model) -> None:
    """For vLLM, which has to know the model itself.

    Raises:
        RecipeError
    """
    if model.config.model_type == "nanohf":
        raise RecipeError(
            "vLLM does not know nanohf models. Make it transformers' own NanoChat, nanohf convert FOLDER NEW --to "
            "nanochat, and set model_name_or_path to NEW."
        )


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
        with trainer.accelerator.autocast():  # once for all its passes; the trained model would cast in each of them
            completions = engine.generate(
                ids, samples, args.max_completion_length, args.temperature, args.top_k, seed=seed
            )
        flat = [completion for group in completions for completion in group]
        return {
            "prompt_ids": [p for p in ids for _ in range(samples)],
            "completion_ids": [c.ids for c in flat],
            "env_mask": [c.chosen for c in flat],
            "logprobs": None,
            "calls": [c.calls for c in flat],
            "refused": [c.refused for c in flat],
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

    Results are in `curve` by step, and in files beside the checkpoints, so that a resumed run has those from before:
    pass_at_k.json, and samples.md to read. main: this process writes them.
    """

    def __init__(self, measure: Callable[[], dict], every: int, describe: Callable, progress, folder: Path, main: bool):
        self.measure, self.every, self.describe, self.progress, self.folder = measure, every, describe, progress, folder
        self.main = main
        known = folder / "pass_at_k.json"
        results = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else []
        self.curve: dict[int, dict] = {result["step"]: result for result in results}

    def now(self, step: int) -> dict:
        """The result at this step, measured unless it is known."""
        if step not in self.curve:
            started = time.perf_counter()
            with self.progress.paused():
                self.curve[step] = self.measure() | {"step": step}
            self.curve[step]["seconds"] = time.perf_counter() - started
            if self.main:
                runs.write_json(self.folder / "pass_at_k.json", list(self.curve.values()))
                self.write_samples(self.folder)
        console.progress(f"step {step:,} | {self.describe(self.curve[step])}\n{readable(self.curve[step]['example'])}")
        return self.curve[step]

    def figures(self) -> list[dict]:
        """The curve without the samples."""
        return [{k: v for k, v in result.items() if k != "samples"} for result in self.curve.values()]

    def write_samples(self, folder: Path) -> None:
        """samples.md: the same few problems at every evaluation."""
        parts = []
        for result in self.curve.values():
            parts.append(f"## Step {result['step']:,}: {self.describe(result)}\n")
            for sample in result["samples"]:
                parts.append(f"{'Right' if sample['right'] else 'Wrong'}:\n\n```\n{readable(sample['text'])}\n```\n")
        (folder / "samples.md").write_text("\n".join(parts), encoding="utf-8")

    def on_train_begin(self, args, state, control, **kwargs):
        """What a killed run measured after its last checkpoint is measured again."""
        self.curve = {step: result for step, result in self.curve.items() if step <= state.global_step}

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            self.now(state.global_step)
