"""Stages 3 and 4: midtraining and supervised fine-tuning, one stage with two recipes.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.sft --config recipes/demo/sft.yaml
"""

from nanohf import recipe, runs
from nanohf.data.chat import mixture
from nanohf.hub.push import publish
from nanohf.train.posttrain import make_optimizer, train
from nanohf.train.progress import say


def main(argv: list[str]) -> None:
    stage, args = recipe.load("sft", argv)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTTrainer

    source = runs.resolve(stage.run_dir, stage.model_name_or_path)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=True)
    args.output_dir = str(runs.checkpoints(stage.run_dir, stage.stage))
    args.assistant_only_loss = True

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
    before = trainer.evaluate()["eval_loss"]
    progress = train(trainer)
    after = trainer.evaluate()["eval_loss"]
    say(f"loss on held-out conversations: {before:.4f} -> {after:.4f}")


if __name__ == "__main__":
    recipe.run_stage(main)
