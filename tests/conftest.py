"""Tiny real objects that many tests share: a tokenizer trained on the toy world and a model with random weights."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import pytest
import torch

from nanohf.data import world
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.tokenizer.train import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    problems = [row["question"] + " " + row["answer"] for row in world.rows("problems", "train", 300)]
    return train_tokenizer([row["text"] for row in world.rows("documents", "train", 300)] + problems, 512)


@pytest.fixture
def model(tokenizer):
    """Depth 2 with weights of a size that makes every token's logits differ (at initialisation they are all 0)."""
    torch.manual_seed(0)
    model = NanoHFForCausalLM(
        NanoHFConfig.from_depth(
            2,
            vocab_size=len(tokenizer),
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2)
    return model.eval()


ROOT = Path(__file__).parents[1]
SMALL = {
    "tokenizer.max_chars": 200_000,
    "tokenizer.vocab_size": 512,
    "pretrain.depth": 1,
    "pretrain.num_attention_heads": 2,
    "pretrain.max_length": 128,
    "pretrain.batch_tokens": 2048,
    "pretrain.max_steps": 60,
    "pretrain.save_steps": 10,
    "pretrain.eval_steps": 30,
    "pretrain.eval_tokens": 4096,
    "midtrain.max_steps": 4,
    "sft.max_steps": 24,
    "sft.save_steps": 4,
    "grpo.max_steps": 2,
    "grpo.eval_problems": 8,
    "grpo.max_completion_length": 32,
    "evaluate.limit": 8,
    "evaluate.eval_tokens": 4096,
    "evaluate.max_completion_length": 32,
}
COMMAND = [sys.executable, "-m", "nanohf.cli", "run", str(ROOT / "recipes/demo")]
COMMAND += [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}


def nanohf_run(cwd: Path, *options: str) -> str:
    result = subprocess.run([*COMMAND, *options], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished small run: the working directory it is in, as runs/demo, and what it printed."""
    cwd = tmp_path_factory.mktemp("run")
    for folder in ("recipes", "accelerate_configs", "nanohf"):
        (cwd / folder).symlink_to(ROOT / folder)
    return cwd, nanohf_run(cwd, "--name", "demo")
