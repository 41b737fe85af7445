"""What test_loss trains, in its own process or launched: canned completions of many lengths; it keeps the gradients.

Launched: loss_case.py FOLDER SETTINGS..., each a JSON object.
"""

import json
import random
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig

import nanohf.model  # noqa: F401 for the Auto classes
from nanohf.data.word_problems import prompt_ids
from nanohf.train.grpo.trainer import PER_WORD_PROBLEM, WordProblemTrainer
from nanohf.train.lora import with_lora

WORD_PROBLEMS, GENERATIONS = 8, 4  # the dataset's and those of each group


def settings(folder: Path, **changes) -> GRPOConfig:
    return GRPOConfig(
        **{
            "output_dir": str(folder),
            "use_cpu": True,
            "bf16": False,
            "activation_checkpointing": False,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "num_generations": GENERATIONS,
            "max_completion_length": 64,
            "beta": 0.0,
            "scale_rewards": "none",
            "loss_type": PER_WORD_PROBLEM,
            "max_grad_norm": 0.0,
            "max_steps": 1,
            "seed": 5,
        }
        | changes
    )


def prompt(word_problem: int) -> list[dict]:
    return [{"role": "user", "content": f"What is {word_problem} plus 1?"}]


def group(word_problem: int) -> list[tuple[list[int], list[int], float]]:
    """Completion, sampled_mask and reward of each sample: the later the word problem, the longer. None has an end."""
    draw, samples = random.Random(word_problem), []
    for _ in range(GENERATIONS):
        ids = [draw.randrange(20, 500) for _ in range(draw.randint(1 + 2 * word_problem, 4 + 5 * word_problem))]
        mask = [int(draw.random() < 0.7) for _ in ids]
        samples.append((ids, mask, float(draw.random() < 0.5)))
    return samples


class KeepGradients(TrainerCallback):
    """Weights and gradients of every step, as the optimizer finds them."""

    def __init__(self):
        self.steps: list[tuple[dict, dict]] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        trained = {name.removeprefix("module."): p for name, p in model.named_parameters() if p.requires_grad}
        weights, gradients = ({n: t.detach().clone() for n, t in kind.items()} for kind in (trained, grads(trained)))
        self.steps.append((weights, gradients))


def grads(parameters: dict) -> dict:
    return {name: p.grad for name, p in parameters.items()}


def train(folder: Path, lora: dict | None = None, noise: float = 0.0, lr: float = 0.0, **changes) -> tuple:
    """The trainer, and weights and gradients of each step. noise: what the model moves away from its reference."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    if lora:
        torch.manual_seed(3)
        model = with_lora(lora, model)
    torch.manual_seed(4)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * noise)
    rewards = {}

    def canned(prompts, trainer):
        first = trainer.accelerator.process_index * len(prompts)
        numbers = [int(p[0]["content"].split()[2]) for p in prompts]
        samples = [group(number)[(first + i) % GENERATIONS] for i, number in enumerate(numbers)]
        rewards.update({tuple(ids): reward for ids, _, reward in samples})
        return {
            "prompt_ids": [prompt_ids(tokenizer, p) for p in prompts],
            "completion_ids": [ids for ids, *_ in samples],
            "env_mask": [mask for _, mask, _ in samples],
            "logprobs": None,
        }

    keep = KeepGradients()
    trainer = WordProblemTrainer(
        model=model,
        args=settings(folder / "checkpoints", **changes),
        train_dataset=Dataset.from_list([{"prompt": prompt(i)} for i in range(WORD_PROBLEMS)]),
        processing_class=tokenizer,
        reward_funcs=lambda completion_ids, **_: [rewards[tuple(ids)] for ids in completion_ids],
        rollout_func=canned,
        optimizers=(torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr), None),
        callbacks=[keep],
    )
    trainer.train()
    return trainer, keep.steps


if __name__ == "__main__":
    launched, found = Path(sys.argv[1]), []
    for changes in sys.argv[2:]:
        trainer, ((_, gradients),) = train(launched, **json.loads(changes))
        found.append({"world_size": trainer.accelerator.num_processes, "gradients": gradients})
    torch.save(found, launched / f"found-{trainer.accelerator.process_index}.pt")
