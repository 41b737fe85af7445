"""Stage 5: reinforcement learning on word problems, with a calculator inside generation.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.grpo \
        --config recipes/demo/grpo.yaml

docs/grpo.md has nanochat's names for the options, LoRA, AdamW, vLLM and what the numbers mean.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

import nanohf.model  # noqa: F401 for the Auto classes
from nanohf import console
from nanohf.data.hub_names import pretrained
from nanohf.data.word_problems import problems, prompt_ids
from nanohf.evals.pass_at_k import score, shown
from nanohf.generation.engine import Engine
from nanohf.recipe.loading import Recipe, load_recipe
from nanohf.runs import find_model
from nanohf.runs import run_folder as runs
from nanohf.runs.disk_full import disk_full_said
from nanohf.runs.lock import stage_lock
from nanohf.train.grpo.diagnosis import Diagnosis
from nanohf.train.grpo.pass_at_k_callback import PassAtK
from nanohf.train.grpo.reward import reward_func
from nanohf.train.grpo.rollout import refuse_nanohf, rollout_func
from nanohf.train.grpo.trainer import WordProblemTrainer
from nanohf.train.lora import merged, with_lora
from nanohf.train.positions import cover
from nanohf.train.post_training import Progress, figures_of, keep_logs, make_optimizer, resumed, save, train
from nanohf.train.trl_arguments import training_arguments


def main(argv: list[str]) -> None:
    recipe = load_recipe("grpo", argv)
    with disk_full_said(recipe.run_dir), stage_lock(recipe.run_dir):
        work(recipe)


def work(recipe: Recipe) -> None:
    stage = recipe.settings
    args = training_arguments(recipe, output_dir=str(runs.checkpoints(recipe.run_dir, recipe.stage)))
    runs.claim(recipe)
    set_seed(args.seed)  # adapters are drawn before the trainer is there to do it
    newest, state = resumed(stage, args, [stage.dataset])

    model, tokenizer = load_model(stage, args)
    engine = Engine(model, tokenizer)
    train_problems = usable_problems(stage, "train", stage.dataset_rows, model, tokenizer)
    test_problems = usable_problems(stage, "test", stage.eval_problems, model, tokenizer)
    console.progress(f"word problems: {len(train_problems):,} to train on, {len(test_problems):,} held out")
    assert args.max_completion_length is not None
    cover(model, tokenizer, longest_prompt(tokenizer, train_problems, test_problems) + args.max_completion_length)

    trainer = WordProblemTrainer(
        model=model,
        args=args,
        train_dataset=train_problems,
        processing_class=tokenizer,
        reward_funcs=reward_func(tokenizer),
        rollout_func=None if args.use_vllm else rollout_func(engine, args),
        optimizers=make_optimizer(stage, model),
        skip_settled=stage.skip_settled,
        stage_state=state,
    )
    progress = Progress.attach(trainer)
    keep_logs(trainer, recipe.run_dir / "logs" / recipe.stage)
    trainer.add_callback(Diagnosis())
    measure = held_out_score(stage, args, engine, test_problems, trainer)
    main_process = trainer.is_world_process_zero()
    pass_at_k = PassAtK(measure, stage.eval_every, shown, progress, trainer.folder, main_process)
    trainer.add_callback(pass_at_k)

    pass_at_k.now(0)
    result = train(trainer, newest)
    pass_at_k.now(trainer.state.global_step)

    if main_process:
        trainer.model = merged(trainer.model)
        figures = figures_of(trainer) | result | learned(trainer, pass_at_k)
        runs.finish(recipe, figures, partial(write_result, trainer, pass_at_k))


def usable_problems(stage, split: str, rows: int | None, model, tokenizer) -> Dataset:
    """The word problems of a split that the model can read and that can be checked; what is left out is said."""
    longest = model.config.max_position_embeddings - 1
    found, left_out = problems(stage.dataset, stage.dataset_config, split, rows, tokenizer, longest)
    if left_out:
        console.warning(f"{len(left_out):,} word problems of {split} are left out: {left_out.summary()}")
    return found


def longest_prompt(tokenizer, *splits: Dataset) -> int:
    return max(len(prompt_ids(tokenizer, row["prompt"])) for split in splits for row in split)


def load_model(stage, args) -> tuple:
    """The model to train, with its adapters if the recipe has LoRA, and its tokenizer."""
    source = runs.resolve(stage.run_dir, stage.model_name_or_path)
    find_model.model_type(source)  # if there is no such model, it says so in a line
    model = find_model.load_model(AutoModelForCausalLM, source)
    if args.use_vllm:
        refuse_nanohf(model)
    return with_lora(stage, model), AutoTokenizer.from_pretrained(**pretrained(source))


def held_out_score(stage, args, engine: Engine, test_problems, trainer: WordProblemTrainer) -> Callable[[], dict]:
    """Measures pass@k of the model as it is then, on all processes together, in the precision of training."""
    measure = partial(
        score,
        engine.generate,
        engine.tokenizer.decode,
        [prompt_ids(engine.tokenizer, row["prompt"]) for row in test_problems],
        test_problems["answer"],
        stage.eval_generations,
        max(1, args.per_device_eval_batch_size // stage.eval_generations),
        seed=args.seed,
        processes=trainer.accelerator,
        max_new_tokens=args.max_completion_length,
        temperature=args.temperature,
        top_k=args.top_k,
    )
    measure = torch.autocast(trainer.accelerator.device.type, torch.bfloat16, enabled=args.bf16)(measure)
    return trainer.clock.phase("evaluation")(measure)


def learned(trainer: WordProblemTrainer, pass_at_k: PassAtK) -> dict:
    """For the record: pass@1 before and after, the curves of pass@k and reward, and where the time went."""
    curve = pass_at_k.figures()
    return {
        "metric": "pass@1",
        "before": curve[0]["pass@1"][0],
        "after": curve[-1]["pass@1"][0],
        "steps": trainer.state.global_step,
        "pass_at_k": curve,
        "rewards": [[log["step"], log["reward"]] for log in trainer.state.log_history if "reward" in log],
        "timed_steps": trainer.clock.steps,
        "seconds_by_phase": dict(trainer.clock.seconds),
    }


def write_result(trainer: WordProblemTrainer, pass_at_k: PassAtK, folder: Path) -> None:
    save(trainer, folder)
    pass_at_k.write_samples(folder)


if __name__ == "__main__":
    console.run_as_program(main)
