"""Stage 5: reinforcement learning on word problems, with a calculator inside generation.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.grpo \
        --config recipes/demo/grpo.yaml
"""

import os
from functools import partial
from pathlib import Path

import torch
from transformers import AutoTokenizer
from trl import GRPOTrainer

from nanohf import recipe, runs
from nanohf.data.problems import problems, prompt_ids
from nanohf.evals.pass_at_k import score, shown
from nanohf.hub.push import publish
from nanohf.model import NanoHFForCausalLM
from nanohf.rollout.engine import Engine
from nanohf.train.grpo import PassAtK, correct_answer, rollout_func
from nanohf.train.posttrain import Progress, make_optimizer, record_of, save, train, without_push
from nanohf.train.progress import say

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental; our tests hold it


def main(argv: list[str]) -> None:
    stage, args = recipe.load("grpo", argv)
    publishing, args = args, without_push(args)
    args.output_dir = str(runs.claim(stage.run_dir, "grpo", recipe.written(argv)))

    source = runs.resolve(stage.run_dir, stage.model_name_or_path)
    model = NanoHFForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    engine = Engine(model, tokenizer)

    train_problems = problems(stage.dataset, stage.dataset_config, "train", stage.dataset_rows)
    test_problems = problems(stage.dataset, stage.dataset_config, "test", stage.eval_problems)
    say(f"problems: {len(train_problems):,} to train on, {len(test_problems):,} held out")

    trainer = GRPOTrainer(
        model=model,
        args=args,
        train_dataset=train_problems,
        processing_class=tokenizer,
        reward_funcs=correct_answer(tokenizer),
        rollout_func=rollout_func(engine, args),
        optimizers=make_optimizer(stage, model),
    )
    progress = Progress.attach(trainer)
    measure = partial(
        score,
        engine.generate,
        tokenizer.decode,
        [prompt_ids(tokenizer, row["prompt"]) for row in test_problems],
        test_problems["answer"],
        stage.eval_generations,
        max(1, args.per_device_eval_batch_size // stage.eval_generations),
        seed=args.seed,
        max_new_tokens=args.max_completion_length,
        temperature=args.temperature,
        top_k=args.top_k,
    )
    measure = torch.autocast(trainer.accelerator.device.type, torch.bfloat16, enabled=args.bf16)(measure)
    curve = Path(args.output_dir) / "pass_at_k.jsonl"
    trainer.add_callback(passes := PassAtK(measure, stage.eval_every, shown, progress, curve))

    before = passes.now(0)
    result = train(trainer)
    after = passes.now(trainer.state.global_step)

    if trainer.is_world_process_zero():
        record = record_of(trainer) | result
        record |= {"metric": "pass@1", "before": before["pass@1"][0], "after": after["pass@1"][0]}
        record |= {"steps": trainer.state.global_step, "pass_at_k": list(passes.curve.values())}
        record |= {"rewards": [[r["step"], r["reward"]] for r in trainer.state.log_history if "reward" in r]}
        record |= {"recipe": recipe.written(argv)}
        folder = runs.finish(stage.run_dir, "grpo", record, partial(save, trainer))
        publish(publishing, "grpo", folder)


if __name__ == "__main__":
    recipe.run_stage(main)
