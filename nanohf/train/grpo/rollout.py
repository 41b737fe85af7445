"""TRL's experimental `rollout_func` over our engine. Nothing else in nanohf touches what TRL calls experimental."""

import os
from collections.abc import Callable
from itertools import groupby

from nanohf.data.word_problems import prompt_ids
from nanohf.errors import RecipeError


def rollout_func(engine, args) -> Callable:
    """For GRPOTrainer: our engine, which reads each distinct prompt once for its whole group of samples.

    `env_mask`, 0 where the engine forced the token, keeps the calculator's output out of the loss. Seeds follow the
    step and rows are counted over all processes, so that a resumed run draws what an uninterrupted one would have
    drawn, and any number of processes what one would have drawn.
    """
    accept_experimental()
    drawn = {"step": -1, "count": 0}

    def rollout(prompts: list, trainer) -> dict:
        step = trainer.state.global_step
        drawn.update(step=step, count=drawn["count"] + 1 if drawn["step"] == step else 0)
        seed = ((args.seed * 1_000_003 + step) * 101 + drawn["count"]) * 257
        first_row = trainer.accelerator.process_index * len(prompts)  # TRL gives each process the next ones

        distinct, samples = whole_groups(prompts)
        ids = [prompt_ids(engine.tokenizer, prompt) for prompt in distinct]
        with trainer.accelerator.autocast():  # once for the whole rollout; the trained model would cast in each forward
            groups = engine.generate(
                ids, samples, args.max_completion_length, args.temperature, args.top_k, seed=seed, first_row=first_row
            )
        completions = [completion for group in groups for completion in group]
        return {
            "prompt_ids": [prompt for prompt in ids for _ in range(samples)],
            "completion_ids": [c.ids for c in completions],
            "env_mask": [c.sampled_mask for c in completions],
            "logprobs": None,
            "calls": [c.calls for c in completions],
            "refused": [c.refused for c in completions],
        }

    return rollout


def accept_experimental() -> None:
    """TRL warns at every start that `rollout_func` may change. Its release is pinned; our tests hold the contract."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


def whole_groups(prompts: list) -> tuple[list, int]:
    """The distinct prompts and the samples of each; where groups are cut off, all prompts with one sample each."""
    groups = [(prompt, len(list(same))) for prompt, same in groupby(prompts)]
    sizes = {size for _, size in groups}
    return ([prompt for prompt, _ in groups], sizes.pop()) if len(sizes) == 1 else (prompts, 1)


def refuse_nanohf(model) -> None:
    """For vLLM, which generates in place of our engine and has to know the model itself.

    Raises:
        RecipeError
    """
    if model.config.model_type == "nanohf":
        raise RecipeError(
            "vLLM does not know nanohf models. Make it transformers' own NanoChat, nanohf convert FOLDER NEW --to "
            "nanochat, and set model_name_or_path to NEW."
        )
