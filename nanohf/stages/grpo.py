"""Stage 5: reinforcement learning on word problems, with a calculator inside generation.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.grpo \
        --config recipes/demo/grpo.yaml

docs/grpo.md has nanochat's names for the options, LoRA, AdamW, vLLM and what the numbers mean.
"""

import os
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import nanohf.model  # noqa: F401 for the Auto classes
from nanohf import console
from nanohf.data.word_problems import problems, prompt_ids
from nanohf.evals.pass_at_k import score, shown
from nanohf.generation.engine import Engine
from nanohf.recipe.loading import load_recipe
from nanohf.runs import run_folder as runs
from nanohf.train.grpo.diagnosis import Diagnosis
from nanohf.train.grpo.trainer import PassAtK, ProblemTrainer, correct_answer, refuse_nanohf, rollout_func
from nanohf.train.lora import merged, with_lora
from nanohf.train.post_training import Progress, figures_of, make_optimizer, save, train
from nanohf.train.trl_arguments import training_arguments

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental; our tests hold it


def main(argv: list[str]) -> None:
    recipe = load_recipe("grpo", argv)
    stage = recipe.settings
    args = training_arguments(recipe, str(runs.checkpoints(recipe.run_dir, recipe.stage)))
    runs.claim(recipe)

    source = runs.resolve(stage.run_dir, stage.model_name_or_path)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    if args.use_vllm:
        refuse_nanohf(model)
    model = with_lora(stage, model)
    tokenizer = AutoTokenizer.from_pretrained(source)
    engine = Engine(model, tokenizer)

    train_problems = problems(stage.dataset, stage.dataset_config, "train", stage.dataset_rows)
    test_problems = problems(stage.dataset, stage.dataset_config, "test", stage.eval_problems)
    console.progress(f"problems: {len(train_problems):,} to train on, {len(test_problems):,} held out")

    trainer = ProblemTrainer(
        model=model,
        args=args,
        train_dataset=train_problems,
        processing_class=tokenizer,
        reward_funcs=correct_answer(tokenizer),
        rollout_func=None if args.use_vllm else rollout_func(engine, args),
        optimizers=make_optimizer(stage, model),
        skip_settled=stage.skip_settled,
    )
    progress = Progress.attach(trainer)
    trainer.add_callback(Diagnosis())
    measure = partial(
        score,
        engine.generate,
        tokenizer.decode,
        [prompt_ids(tokenizer, row["prompt"]) for row in test_problems],
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
    measure = trainer.clock.phase("evaluation")(measure)
    main_process = trainer.is_world_process_zero()
    passes = PassAtK(measure, stage.eval_every, shown, progress, Path(args.output_dir), main_process)
    trainer.add_callback(passes)

    before = passes.now(0)
    result = train(trainer)
    after = passes.now(trainer.state.global_step)

    if main_process:
        trainer.model = merged(trainer.model)
        figures = figures_of(trainer) | result
        figures |= {"metric": "pass@1", "before": before["pass@1"][0], "after": after["pass@1"][0]}
        figures |= {"steps": trainer.state.global_step, "pass_at_k": passes.figures()}
        figures |= {"rewards": [[r["step"], r["reward"]] for r in trainer.state.log_history if "reward" in r]}
        figures |= {"timed_steps": trainer.clock.steps, "seconds_by_phase": dict(trainer.clock.seconds)}

        def write(folder: Path) -> None:
            save(trainer, folder)
            passes.write_samples(folder)

        runs.finish(recipe, figures, write)


if __name__ == "__main__":
    console.run_as_program(main)
