"""pass@k of the model as it is while it trains: on validation word problems, and on those that training begins with."""

from collections.abc import Callable

import torch
from datasets import Dataset, concatenate_datasets

from nanohf import console
from nanohf.data.word_problems import prompt_ids
from nanohf.errors import RecipeError
from nanohf.evals.pass_at_k import score, shown
from nanohf.generation.engine import Engine
from nanohf.train.grpo.diagnosis import spread, too_little_spread
from nanohf.train.grpo.trainer import WordProblemTrainer

TRIED = 64  # word problems, before the first step


def scorer(engine: Engine, args, trainer: WordProblemTrainer) -> Callable[..., dict]:
    """score(word_problems, samples, seed): by all processes together, sampled as in training and in its precision."""

    def measure(word_problems: Dataset, samples: int, seed: int) -> dict:
        return score(
            engine.generate,
            engine.tokenizer.decode,
            [prompt_ids(engine.tokenizer, prompt) for prompt in word_problems["prompt"]],
            list(word_problems["answer"]),
            samples,
            max(1, args.per_device_eval_batch_size // samples),
            seed=seed,
            processes=trainer.accelerator,
            max_new_tokens=args.max_completion_length,
            temperature=args.temperature,
            top_k=args.top_k,
        )

    measure = torch.autocast(trainer.accelerator.device.type, torch.bfloat16, enabled=args.bf16)(measure)
    return trainer.clock.phase("evaluation")(measure)


def by_source(measure: Callable[..., dict], validation: dict[str, Dataset], samples: int, seed: int) -> dict:
    return {name: measure(word_problems, samples, seed) for name, word_problems in validation.items()}


def check_spread(
    measure: Callable[..., dict], trainer: WordProblemTrainer, word_problems: list[Dataset], force: bool
) -> None:
    """Tries some word problems of each source in groups, as training will.

    Raises:
        RecipeError: hardly any group has right and wrong completions, and so something to learn from; not with `force`.
    """
    some = concatenate_datasets([spaced(of, TRIED // len(word_problems)) for of in word_problems])
    result = measure(some, trainer.num_generations, trainer.args.seed)
    if (said := too_little_spread(result)) and not force:
        raise RecipeError(f"{said} To begin all the same: --set grpo.force=true")
    console.progress(said or f"before training | {shown(result)} | groups with spread {spread(result):.0%}")


def spaced(word_problems: Dataset, count: int) -> Dataset:
    """So many, from all over the source; all of a smaller one."""
    every = max(1, len(word_problems) // max(1, count))
    return word_problems.select(range(0, len(word_problems), every)[: max(1, count)])
