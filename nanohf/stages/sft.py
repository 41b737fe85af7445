"""Stages 3 and 4: midtraining and supervised fine-tuning, one stage with two recipes.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.sft \
        --config recipes/demo/sft.yaml
"""

from dataclasses import asdict
from pathlib import Path

import torch
from datasets import concatenate_datasets
from transformers import AutoTokenizer, set_seed
from trl import SFTTrainer

from nanohf import console
from nanohf.data.hub_names import pretrained
from nanohf.data.mixture import Given
from nanohf.errors import RecipeError
from nanohf.evals.held_out import HeldOut, compared, loss_of_conversations
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.named_state import named_state
from nanohf.recipe.loading import Recipe, load_recipe
from nanohf.report.run_report import mixture_table
from nanohf.runs import run_folder as runs
from nanohf.runs.disk_full import disk_full_said
from nanohf.runs.find_model import load_model, model_type
from nanohf.runs.lock import stage_lock
from nanohf.tokenizer.train_bpe import token_bytes
from nanohf.train.compute import training_flops
from nanohf.train.lora import merged, with_lora
from nanohf.train.optimizer_handover import carry_over, save_moments
from nanohf.train.positions import NO_LIMIT, cover, trained_positions
from nanohf.train.post_training import (
    Progress,
    figures_of,
    keep_logs,
    lr_scale_of,
    make_optimizer,
    resumed,
    save,
    train,
)
from nanohf.train.prepared_rows import prepared_rows
from nanohf.train.sample import chat_sample
from nanohf.train.together import together
from nanohf.train.trainer_guards import GuardedTrainer
from nanohf.train.trl_arguments import training_arguments


def main(argv: list[str]) -> None:
    recipe = load_recipe("sft", argv)
    with disk_full_said(recipe.run_dir), stage_lock(recipe.run_dir), together(recipe):
        work(recipe)


def work(recipe: Recipe) -> None:
    stage = recipe.settings
    args = training_arguments(recipe, output_dir=str(runs.checkpoints(recipe.run_dir, recipe.stage)))
    runs.claim(recipe)
    set_seed(args.seed)  # adapters are drawn before the trainer is there to do it
    newest, state = resumed(stage, args, [source.dataset for source in stage.mixture])

    source = runs.resolve(stage.run_dir, stage.model_name_or_path)
    model = with_lora(stage, starting_model(source))
    tokenizer = AutoTokenizer.from_pretrained(**pretrained(source), model_max_length=NO_LIMIT)

    folder = runs.rows(recipe.run_dir, recipe.stage)
    rows, counts, eval_rows = prepared_rows(folder, tokenizer, stage.mixture, stage.eval_mixture, args)
    cover(model, tokenizer, trained_positions(rows, args))
    given = [asdict(count) for count in counts]
    for line in mixture_table(given):
        console.progress(line)
    tokens = sum(count.tokens for count in counts)
    lr_scale = lr_scale_of(stage, args, tokens, len(rows)) if stage.optimizer == "muon" else None
    optimizer, schedule = make_optimizer(stage, model, lr_scale)
    if stage.carry_optimizer and optimizer is not None:
        carry_over(optimizer, model, source)

    # Rows at a time as in training: with eight, their logits alone set the stage's peak (d12: 13 GB).
    held_out = HeldOut(stage.eval_mixture, eval_rows, token_bytes(tokenizer), args.per_device_train_batch_size)
    assistant_only, args.assistant_only_loss = args.assistant_only_loss, False  # the rows bring their labels

    trainer = ChatTrainer(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=concatenate_datasets(eval_rows) if args.eval_strategy != "no" else None,
        processing_class=tokenizer,
        optimizers=(optimizer, schedule),
        stage_state=state,
    )
    Progress.attach(trainer)
    keep_logs(trainer, recipe.run_dir / "logs" / recipe.stage)
    before = measure(held_out, trainer)
    result = train(trainer, newest)
    trainer.model = merged(trainer.model)
    after = measure(held_out, trainer)
    for figure in (changes := compared(before, after)):
        console.progress(f"{figure['source']}, {figure['metric']}: {figure['before']:.4f} -> {figure['after']:.4f}")

    if trainer.is_world_process_zero():
        figures = figures_of(trainer) | result
        figures |= {"metric": "loss on held-out conversations"}
        figures |= {"before": loss_of_conversations(before), "after": loss_of_conversations(after)}
        figures |= {"held_out": changes, "mixture": given, "assistant_only_loss": assistant_only}
        figures |= {
            "flops": None if stage.use_peft or result["resumed"] else flops(model, args, counts, result["tokens"])
        }
        figures |= {"sample": chat_sample(trainer.accelerator.unwrap_model(trainer.model), tokenizer)}
        figures |= {"losses": [[log["step"], log["loss"]] for log in trainer.state.log_history if "loss" in log]}

        def write(folder: Path) -> None:
            save(trainer, folder)
            if stage.keep_optimizer and optimizer is not None:
                save_moments(named_state(optimizer, model), folder)

        runs.finish(recipe, figures, write)


class ChatTrainer(GuardedTrainer, SFTTrainer):
    """TRL's trainer, guarded."""


def starting_model(source: str) -> NanoHFForCausalLM:
    """The model that the stage starts from. Of another architecture, weights would be left out and others made up."""
    if (kind := model_type(source)) != NanoHFConfig.model_type:
        raise RecipeError(f"model_name_or_path={source} is a {kind} model, not nanohf; see nanohf convert")
    return load_model(NanoHFForCausalLM, source)


def flops(model, args, counts: list[Given], tokens: int) -> int:
    """Of training: all positions of packed rows are attended to, of others as many as a conversation has."""
    length = args.max_length if args.packing else sum(c.tokens for c in counts) // sum(c.rows for c in counts)
    return tokens * training_flops(model, length)


def measure(held_out: HeldOut, trainer: SFTTrainer) -> list[dict]:
    """Each process takes its share of the rows."""
    accelerator = trainer.accelerator
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=trainer.args.bf16):
        return held_out.measure(trainer.model, share, accelerator.reduce)


if __name__ == "__main__":
    console.run_as_program(main)
