"""Stages 3 and 4: midtraining and supervised fine-tuning, one stage with two recipes.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.sft \
        --config recipes/demo/sft.yaml
"""

from functools import partial

import torch
from transformers import AutoTokenizer
from trl import SFTTrainer

from nanohf import recipe, runs
from nanohf.data.chat import mixture
from nanohf.hub.push import publish
from nanohf.model import NanoHFForCausalLM
from nanohf.train.lora import merged, with_lora
from nanohf.train.posttrain import Progress, make_optimizer, record_of, save, train, without_push
from nanohf.train.progress import say


def main(argv: list[str]) -> None:
    stage, args = recipe.load("sft", argv)
    publishing, args = args, without_push(args)
    args.output_dir = str(runs.claim(stage.run_dir, stage.stage, recipe.written(argv)))

    source = runs.resolve(stage.run_dir, stage.model_name_or_path)
    model = with_lora(stage, NanoHFForCausalLM.from_pretrained(source, dtype=torch.float32))
    tokenizer = AutoTokenizer.from_pretrained(source)

    conversations, counts = mixture(stage.mixture, args.seed)
    for name, count in counts:
        say(f"mixture: {count:,} conversations from {name}")
    held_out, _ = mixture(stage.eval_mixture, args.seed)

    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=conversations,
        eval_dataset=held_out,
        processing_class=tokenizer,
        optimizers=make_optimizer(stage, model),
    )
    Progress.attach(trainer)
    before = trainer.evaluate()["eval_loss"]
    result = train(trainer)
    trainer.model = merged(trainer.model)
    after = trainer.evaluate()["eval_loss"]
    say(f"loss on held-out conversations: {before:.4f} -> {after:.4f}")

    if trainer.is_world_process_zero():
        record = record_of(trainer) | result
        record |= {"metric": "loss on held-out conversations", "before": before, "after": after}
        record |= {"recipe": recipe.written(argv)}
        folder = runs.finish(stage.run_dir, stage.stage, record, partial(save, trainer))
        publish(publishing, stage.stage, folder)


if __name__ == "__main__":
    recipe.run_stage(main)
