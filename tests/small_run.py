"""The whole chain, small: the command, its environment and how to run it. Not a test."""

import os
import subprocess
import sys
from pathlib import Path

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
    "pretrain.keep_optimizer": "true",
    "midtrain.carry_optimizer": "true",
    "midtrain.max_steps": 12,
    "midtrain.save_steps": 4,
    "midtrain.logging_steps": 2,
    "sft.max_steps": 24,
    "sft.save_steps": 4,
    "sft.logging_steps": 4,
    "grpo.max_steps": 2,
    "grpo.force": "true",
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
    return result.stdout + result.stderr
