"""Stage 5: reinforcement learning on word problems, with a calculator inside generation.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.grpo \
        --config recipes/demo/grpo.yaml

docs/grpo.md has nanochat's names for the options, LoRA, AdamW, vLLM and what the numbers mean.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

import nanohf.model  # noqa: F401 for the Auto classes
from nanohf import console
from nanohf.data.hub_names import pretrained
from nanohf.data.word_problem_source import WordProblemSource
from nanohf.data.word_problems import problems, prompt_ids
from nanohf.generation.engine import Engine
from nanohf.recipe.loading import Recipe, load_recipe
from nanohf.runs import find_model
from nanohf.runs import run_folder as runs
from nanohf.runs.disk_full import disk_full_said
from nanohf.runs.lock import stage_lock
from nanohf.train.grpo.best_weights import BestWeights
from nanohf.train.grpo.diagnosis import Diagnosis
from nanohf.train.grpo.measuring import by_source, check_spread, scorer
from nanohf.train.grpo.pass_at_k_callback import PassAtK, described, for_record, over_sources
from nanohf.train.grpo.reward import reward_func
from nanohf.train.grpo.rollout import refuse_nanohf, rollout_func
from nanohf.train.grpo.trainer import WordProblemTrainer
from nanohf.train.lora import merged, with_lora
from nanohf.train.positions import cover
from nanohf.train.post_training import Progress, figures_of, keep_logs, make_optimizer, resumed, save, train
from nanohf.train.together import together
from nanohf.train.trl_arguments import training_arguments

FRESH = 1_000_003  # added to the seed, for samples by which no step was chosen


def main(argv: list[str]) -> None:
    recipe = load_recipe("grpo", argv)
    with disk_full_said(recipe.run_dir), stage_lock(recipe.run_dir), together(recipe):
        work(recipe)


def work(recipe: Recipe) -> None:
    stage = recipe.settings
    args = training_arguments(recipe, output_dir=str(runs.checkpoints(recipe.run_dir, recipe.stage)))
    runs.claim(recipe)
    set_seed(args.seed)  # adapters are drawn before the trainer is there to do it
    newest, state = resumed(stage, args, [source.dataset for source in stage.ladder])

    model, tokenizer = load_model(stage, args)
    engine = Engine(model, tokenizer)
    training, validation = word_problems(stage, model, tokenizer)
    cover(model, tokenizer, longest_prompt(tokenizer, training, validation) + (args.max_completion_length or 0))

    trainer = WordProblemTrainer(
        model=model,
        args=args,
        train_dataset=concatenate_datasets(list(training.values())),
        sources=[len(of) for of in training.values()],
        processing_class=tokenizer,
        reward_funcs=reward_func(tokenizer),
        rollout_func=None if args.use_vllm else rollout_func(engine, args),
        optimizers=make_optimizer(stage, model, stage.lr_scale),
        skip_settled=stage.skip_settled,
        stage_state=state,
    )
    progress = Progress.attach(trainer)
    keep_logs(trainer, recipe.run_dir / "logs" / recipe.stage)
    trainer.add_callback(Diagnosis())
    measure = scorer(engine, args, trainer)
    if newest is None:
        check_spread(measure, trainer, list(training.values()), stage.force)
    measured = partial(by_source, measure, validation, stage.eval_generations)
    weights, main = BestWeights(model, trainer.folder), trainer.is_world_process_zero()
    pass_at_k = PassAtK(partial(measured, args.seed), stage.eval_every, progress, trainer.folder, weights, main)
    trainer.add_callback(pass_at_k)
    pass_at_k.now(0)
    result = train(trainer, newest)
    pass_at_k.now(trainer.state.global_step)
    again = choose(trainer, pass_at_k, partial(measured, args.seed + FRESH))
    if main:
        trainer.model = merged(trainer.model)
        figures = figures_of(trainer) | result | learned(trainer, pass_at_k, again, list(training))
        runs.finish(recipe, figures, partial(write_result, trainer, pass_at_k))


def word_problems(stage, model, tokenizer) -> tuple[dict[str, Dataset], dict[str, Dataset]]:
    """By source: those to train on, and those by which the best step is chosen."""
    training, validation = {}, {}
    for source in stage.ladder:
        name = source.label
        training[name] = usable_problems(stage, source, "train", None, model, tokenizer)
        validation[name] = usable_problems(stage, source, "validation", stage.eval_problems, model, tokenizer)
        counts = f"{len(training[name]):,} to train on, {len(validation[name]):,} for validation"
        console.progress(f"word problems {name}: {counts}")
    return training, validation


def usable_problems(stage, source: WordProblemSource, part: str, count: int | None, model, tokenizer) -> Dataset:
    """The word problems that the model can read and that can be checked; what is left out is said."""
    longest = model.config.max_position_embeddings - 1
    found, left_out = problems(source, part, count, stage.validation, tokenizer, longest)
    if left_out and part == "train":
        console.warning(f"{len(left_out):,} word problems of {source.label} are left out: {left_out.summary()}")
    return found


def longest_prompt(tokenizer, *parts: dict[str, Dataset]) -> int:
    prompts = [prompt for part in parts for source in part.values() for prompt in source["prompt"]]
    return max(len(prompt_ids(tokenizer, prompt)) for prompt in prompts)


def load_model(stage, args) -> tuple:
    """The model to train, with its adapters if the recipe has LoRA, and its tokenizer."""
    source = runs.resolve(stage.run_dir, stage.model_name_or_path)
    find_model.model_type(source)  # if there is no such model, it says so in a line
    model = find_model.load_model(AutoModelForCausalLM, source)
    if args.use_vllm:
        refuse_nanohf(model)
    return with_lora(stage, model), AutoTokenizer.from_pretrained(**pretrained(source))


def choose(trainer: WordProblemTrainer, pass_at_k: PassAtK, measure: Callable[[], dict]) -> dict:
    """Gives the model the best step's weights. Returns its score on fresh samples: the best of several flatters."""
    last = trainer.state.global_step
    chosen = pass_at_k.weights.restore(pass_at_k.best_kept)
    again = over_sources(measure()) | {"step": last if chosen is None else chosen}
    console.progress(f"the result is that of step {again['step']:,} of {last:,}, on fresh samples | {described(again)}")
    if again["step"] == 0 and last:
        console.warning("no step had a higher pass@1 than the model that grpo began with, which is the result")
    return again


def learned(trainer: WordProblemTrainer, pass_at_k: PassAtK, again: dict, sources: list[str]) -> dict:
    """For the record: pass@1 before and after, the curves of pass@k and reward, and where the time went."""
    curve, drawn = pass_at_k.figures(), zip(sources, trainer.order.by_source(), strict=True)
    return {
        "metric": "pass@1",
        "before": curve[0]["pass@1"],
        "after": again["pass@1"],
        "steps": trainer.state.global_step,
        "word_problems": curve,
        "chosen": for_record(again),
        "drawn": {name: {"groups": groups, "pass_rate": rate} for name, (groups, rate) in drawn},
        "rewards": [[log["step"], log["reward"]] for log in trainer.state.log_history if "reward" in log],
        "timed_steps": trainer.clock.steps,
        "seconds_by_phase": dict(trainer.clock.seconds),
    }


def write_result(trainer: WordProblemTrainer, pass_at_k: PassAtK, folder: Path) -> None:
    save(trainer, folder)
    pass_at_k.write_samples(folder)


if __name__ == "__main__":
    console.run_as_program(main)
