"""Stages that take two seconds: their recipes, run in this process. Not a test."""

from accelerate.state import AcceleratorState
from safetensors.torch import load_file

PRETRAIN = """
depth: 1
num_attention_heads: 2
max_length: 32
per_device_train_batch_size: 2
batch_tokens: 128
max_steps: 3
eval_steps: 100
eval_tokens: 64
torch_compile: false
tokenizer: {folder}/model
mixed_precision: "no"
"""
CHAT = """
stage: sft
model_name_or_path: {folder}/model
mixture: [{{dataset: {folder}/talks, converter: messages}}]
eval_mixture: [{{dataset: {folder}/talks, split: test, converter: messages}}]
max_length: 64
conversations_per_step: 1
per_device_train_batch_size: 1
max_steps: 3
bf16: false
"""


def run(main, folder, stage: str, recipe: str, run: str, seed: int = 1) -> dict:
    """The weights that the stage leaves in folder/run/stage, begun with whatever random state this process has."""
    AcceleratorState._reset_state(reset_partial_state=True)
    (folder / "recipe.yaml").write_text(recipe.format(folder=folder))
    main(["--config", str(folder / "recipe.yaml"), "--run_dir", str(folder / run), "--seed", str(seed)])
    return load_file(folder / run / stage / "model.safetensors")
