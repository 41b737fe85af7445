"""Stages 3 and 4: midtraining and supervised fine-tuning, one stage with two recipes.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.sft \
        --config recipes/demo/sft.yaml
"""

from dataclasses import asdict
from pathlib import Path

import torch
from datasets import concatenate_datasets
from transformers import AutoTokenizer, PreTrainedConfig
from trl import SFTTrainer

from nanohf import console
from nanohf.data.mixture import mixture, source_rows
from nanohf.errors import RecipeError
from nanohf.evals.held_out import HeldOut, compared, loss_of_conversations
from nanohf.hub.publish import publish
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.named_state import named_state
from nanohf.recipe import loading as recipe
from nanohf.report.run_report import mixture_table
from nanohf.runs import run_folder as runs
from nanohf.runs.disk_full import disk_full_said
from nanohf.runs.lock import stage_lock
from nanohf.tokenizer.train_bpe import token_bytes
from nanohf.train.lora import merged, with_lora
from nanohf.train.optimizer_handover import carry_over, save_moments
from nanohf.train.post_training import Progress, make_optimizer, record_of, resumed, save, train, without_push
from nanohf.train.trainer_guards import GuardedTrainer


def main(argv: list[str]) -> None:
    stage, args = recipe.load("sft", argv)
    with disk_full_said(stage.run_dir), stage_lock(stage.run_dir):
        work(stage, args, argv)


def work(stage, args, argv: list[str]) -> None:
    publishing, args = args, without_push(args)
    args.output_dir = str(runs.claim(stage.run_dir, stage.stage, recipe.written(argv)))
    newest, state = resumed(stage, args, [source.dataset for source in stage.mixture])

    source = runs.resolve(stage.run_dir, stage.model_name_or_path)
    model = with_lora(stage, load(source))
    tokenizer = AutoTokenizer.from_pretrained(source)
    optimizer, schedule = make_optimizer(stage, model)
    if stage.carry_optimizer:
        carry_over(optimizer, model, source)

    rows, given = mixture(tokenizer, stage.mixture, args)
    given = [asdict(g) for g in given]
    for line in mixture_table(given):
        console.progress(line)
    eval_rows = [source_rows(tokenizer, source, args)[0] for source in stage.eval_mixture]
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
    before = measure(held_out, trainer)
    result = train(trainer, newest)
    trainer.model = merged(trainer.model)
    after = measure(held_out, trainer)
    for figure in (changes := compared(before, after)):
        console.progress(f"{figure['source']}, {figure['metric']}: {figure['before']:.4f} -> {figure['after']:.4f}")

    if trainer.is_world_process_zero():
        record = record_of(trainer) | result
        record |= {"metric": "loss on held-out conversations"}
        record |= {"before": loss_of_conversations(before), "after": loss_of_conversations(after)}
        record |= {"held_out": changes, "mixture": given, "assistant_only_loss": assistant_only}
        record |= {"losses": [[log["step"], log["loss"]] for log in trainer.state.log_history if "loss" in log]}
        record |= {"recipe": recipe.written(argv)}

        def write(folder: Path) -> None:
            save(trainer, folder)
            if stage.keep_optimizer:
                save_moments(named_state(optimizer, model), folder)

        folder = runs.finish(stage.run_dir, stage.stage, record, write)
        publish(publishing, stage.stage, folder)


class ChatTrainer(GuardedTrainer, SFTTrainer):
    """TRL's trainer, guarded."""


def load(source: str) -> NanoHFForCausalLM:
    """The model that the stage starts from. Of another architecture, weights would be left out and others made up."""
    kind = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
    if kind != NanoHFConfig.model_type:
        raise RecipeError(f"model_name_or_path={source} is a {kind} model, not nanohf; see nanohf convert")
    return NanoHFForCausalLM.from_pretrained(source, dtype=torch.float32)


def measure(held_out: HeldOut, trainer: SFTTrainer) -> list[dict]:
    """Each process takes its share of the rows."""
    accelerator = trainer.accelerator
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=trainer.args.bf16):
        return held_out.measure(trainer.model, share, accelerator.reduce)


if __name__ == "__main__":
    recipe.run_stage(main)
