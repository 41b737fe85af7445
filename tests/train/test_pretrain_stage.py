"""The pretraining stage as it is launched: killed and resumed in two processes, and stopped under `nanohf run`."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from small_run import COMMAND, ENVIRONMENT, ROOT

from nanohf.recipe.schemas import PretrainConfig
from nanohf.stages.pretrain import open_loader

STEPS = 40
PRETRAIN = f"""
num_attention_heads: 2
depth: 1
max_length: 64
per_device_train_batch_size: 4
batch_tokens: 512
max_steps: {STEPS}
eval_steps: 1000
eval_tokens: 1024
save_steps: 4
logging_steps: 4
torch_compile: false
"""


class Launch:
    """The stage in some processes on the CPU, through `accelerate launch` and our ddp.yaml."""

    def __init__(self, folder: Path, run: str, processes: int):
        self.checkpoints = folder / run / "checkpoints/pretrain"
        self.log = (folder / f"{run}-{processes}.log").open("w+")
        config = ROOT / "accelerate_configs" / ("ddp.yaml" if processes > 1 else "cpu.yaml")
        command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(config)]
        command += ["--num_processes", str(processes), "--main_process_port", "0"] if processes > 1 else []
        command += ["-m", "nanohf.stages.pretrain", "--config", str(folder / "pretrain.yaml")]
        command += ["--run_dir", str(folder / run), "--tokenizer", str(folder / "tokenizer")]
        environment = ENVIRONMENT | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=subprocess.STDOUT)

    def wait_for(self, step: int) -> None:
        for _ in range(2400):
            if any(p.name >= f"step-{step:08d}" for p in self.checkpoints.glob("step-*")):
                return
            assert self.process.poll() is None, self.output()
            time.sleep(0.02)
        raise AssertionError(self.output())

    def signal(self, number: int, launcher: bool) -> None:
        for process in psutil.Process(self.process.pid).children(recursive=True) + [self.process] * launcher:
            os.kill(process.pid, number)

    def output(self) -> str:
        self.process.wait()
        self.log.seek(0)
        return self.log.read()


@pytest.fixture
def folder(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "pretrain.yaml").write_text(PRETRAIN)
    return tmp_path


def record(run: Path) -> dict:
    return json.loads((run / "pretrain/stage.json").read_text())


def weights(run: Path) -> dict:
    return load_file(run / "pretrain/model.safetensors")


@pytest.mark.slow
def test_two_processes_stopped_and_killed_end_as_if_they_had_not_been(folder):
    whole = Launch(folder, "whole", 2)
    stopped = Launch(folder, "stopped", 2)
    stopped.wait_for(4)
    stopped.signal(signal.SIGTERM, launcher=False)
    assert "with a checkpoint; the same command resumes" in stopped.output()
    assert stopped.process.returncode == 0
    assert not (folder / "stopped/pretrain").exists()
    shutil.copytree(folder / "stopped", folder / "alone")

    killed = Launch(folder, "stopped", 2)
    killed.wait_for(random.choice(range(12, 33)))
    killed.signal(signal.SIGKILL, launcher=True)
    killed.output()
    assert not (folder / "stopped/pretrain").exists()
    last = Launch(folder, "stopped", 2)
    assert "resumed from step" in last.output()
    whole.output()
    assert [record(folder / name)["world_size"] for name in ("whole", "stopped")] == [2, 2]
    expected, found = weights(folder / "whole"), weights(folder / "stopped")
    assert all((expected[name] == found[name]).all() for name in expected)

    alone = Launch(folder, "alone", 1)
    output = alone.output()
    assert alone.process.returncode == 0, output
    assert "written by 2 process(es), now 1: still 8 rows per step, as 2 micro-batch(es) of 4" in output
    assert record(folder / "alone")["tokens"] == STEPS * 512
    assert record(folder / "alone")["world_size"] == 1


@pytest.mark.slow
def test_sigterm_to_the_whole_run_stops_it_behind_a_checkpoint(tmp_path):
    options = ("--name", "stopped", "--until", "pretrain", "--set", "pretrain.max_steps=400")
    process = subprocess.Popen(
        [*COMMAND, *options], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    checkpoints = tmp_path / "runs/stopped/checkpoints/pretrain"
    while process.poll() is None and not list(checkpoints.glob("step-*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "with a checkpoint; the same command resumes" in output
    assert not (tmp_path / "runs/stopped/pretrain").exists()
    assert "report" not in output, "it went no further"


def test_the_recipes_split_and_seed_reach_the_text(tmp_path, tokenizer):
    for split, first in (("books", 0), ("web", 500)):
        (tmp_path / split).mkdir()
        lines = (json.dumps({"text": f"Number {i}."}) + "\n" for i in range(first, first + 300))
        (tmp_path / split / "a.jsonl").write_text("".join(lines))

    def shown(**keys) -> list[str]:
        config = PretrainConfig(dataset=str(tmp_path), max_length=32, **keys)
        rows = torch.cat(list(islice(open_loader(config, tokenizer, "train", 2), 20)))
        return re.findall(r"Number (\d+)", tokenizer.decode(rows.flatten()))

    books, other = shown(split="books", seed=1), shown(split="books", seed=2)
    assert books == shown(split="books", seed=1) != other
    assert all(int(number) < 300 for number in books + other)
    assert any(int(number) >= 500 for number in shown())
