"""Two machines on loopback, two processes each: they share a disk, or both are refused at once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from nanohf.errors import RecipeError
from nanohf.pipeline import run

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
PRETRAIN = {
    "depth": 1,
    "num_attention_heads": 2,
    "max_length": 64,
    "per_device_train_batch_size": 1,
    "batch_tokens": 256,
    "max_steps": 100,
    "save_steps": 10,
    "eval_tokens": 1024,
    "mixed_precision": "no",
    "torch_compile": "false",
}
SETTINGS = {"tokenizer.vocab_size": 512, "tokenizer.max_chars": 100_000}
SETTINGS |= {f"pretrain.{key}": value for key, value in PRETRAIN.items()}


def popen(command: list, cwd: Path) -> subprocess.Popen:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([str(part) for part in command], cwd=cwd, env=os.environ | ENVIRONMENT, **streams)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def by_run(cwds: list[Path], *options: str) -> list[subprocess.Popen]:
    """`nanohf run` on both machines, with accelerate_configs/multi_node.yaml as it says to change it."""
    config, port, started = yaml.safe_load((ROOT / "accelerate_configs/multi_node.yaml").read_text()), free_port(), []
    for machine, cwd in enumerate(cwds):
        here = {"num_processes": 4, "machine_rank": machine, "main_process_ip": "127.0.0.1", "main_process_port": port}
        (cwd / f"machine-{machine}.yaml").write_text(yaml.safe_dump(config | here))
        command = [sys.executable, "-m", "nanohf.cli", "run", ROOT / "recipes/demo", "--name", "two", *options]
        command += ["--accelerate-config", f"machine-{machine}.yaml"]
        started.append(popen([*command, *(p for k, v in SETTINGS.items() for p in ("--set", f"{k}={v}"))], cwd))
    return started


def by_launch(cwds: list[Path], stage: str, *options: str) -> list[subprocess.Popen]:
    """`accelerate launch` of one stage on both machines."""
    port = free_port()
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", ROOT / "accelerate_configs/ddp.yaml"]
    launch += ["--num_processes", 4, "--num_machines", 2, "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    stage_command = ["-m", f"nanohf.stages.{stage}", "--config", ROOT / f"recipes/demo/{stage}.yaml"]
    return [
        popen([*launch, "--machine_rank", n, "--rdzv_backend", "static", *stage_command, *options], cwd)
        for n, cwd in enumerate(cwds)
    ]


def wait_for(cwd: Path, appears: str, started: list[subprocess.Popen]) -> None:
    while not any(cwd.glob(appears)):
        assert all(process.poll() is None for process in started), [p.communicate()[0] for p in started]
        time.sleep(0.05)


def ended(started: list[subprocess.Popen], within: float) -> tuple[list[int], list[str]]:
    """Exit statuses and outputs of both machines."""
    give_up = time.monotonic() + within
    try:
        outputs = [process.communicate(timeout=give_up - time.monotonic())[0] for process in started]
    finally:
        for process in started:
            process.terminate()  # the launcher ends its workers
    return [process.returncode for process in started], outputs


@pytest.mark.slow
def test_two_machines_with_one_disk_are_stopped_and_resume(tmp_path):
    """The tokenizer is trained by one of four processes; SIGTERM reaches one machine of two, and all save and end."""
    started = by_run([tmp_path, tmp_path], "--until", "pretrain")
    wait_for(tmp_path, "runs/two/checkpoints/pretrain/step-*", started)
    started[1].send_signal(signal.SIGTERM)
    statuses, outputs = ended(started, 300)
    assert statuses == [0, 0], outputs
    assert "with a checkpoint" in outputs[0]
    assert not (tmp_path / "runs/two/pretrain").exists()
    statuses, outputs = ended(by_run([tmp_path, tmp_path], "--until", "pretrain"), 300)
    assert statuses == [0, 0], outputs
    assert "resumed from step" in outputs[0]
    assert "tokens/s" not in outputs[1]

    run = ["--tokenizer", tmp_path / "runs/two/tokenizer", "--run_dir", tmp_path / "whole"]
    keys = (part for key, value in PRETRAIN.items() for part in (f"--{key}", value))
    statuses, outputs = ended(by_launch([tmp_path, tmp_path], "pretrain", *run, *keys), 300)
    assert statuses == [0, 0], outputs
    resumed, whole = (
        json.loads((tmp_path / folder / "pretrain/stage.json").read_text()) for folder in ("runs/two", "whole")
    )
    # DDP sums its gradients in other buckets in the first step after a start, which four processes round otherwise.
    steps = [step for step, _ in whole["losses"]]
    assert [step for step, _ in resumed["losses"]] == steps
    assert [x for _, x in resumed["losses"]] == pytest.approx([x for _, x in whole["losses"]], abs=2e-3)
    assert resumed["world_size"] == whole["world_size"] == 4
    assert not list(tmp_path.glob("*/.sign-*")) + list(tmp_path.glob("*/.looking-*"))


@pytest.mark.slow
@pytest.mark.parametrize("launched", ["run", "stage"])
def test_two_machines_without_a_shared_disk_are_refused(tmp_path, launched):
    cwds = [tmp_path / "first", tmp_path / "second"]
    for cwd in cwds:
        cwd.mkdir()
    started = by_run(cwds, "--until", "pretrain") if launched == "run" else by_launch(cwds, "tokenizer")
    wait_for(cwds[1], "runs", started)  # the second machine looks; importing torch may take longer than all the rest
    statuses, outputs = ended(started, 60)  # 5 seconds, and what busy machines take to end
    assert all(statuses), outputs
    assert all("must be on a disk that all machines share" in output for output in outputs), outputs
    if launched == "run":
        assert statuses == [2, 2]
    assert not list(tmp_path.glob("*/runs/*/*"))


@pytest.mark.parametrize(
    ("launch", "options", "says"),
    [
        ({"distributed_type": "MULTI_GPU"}, {}, "has no num_processes: add it, over all machines together"),
        ({"distributed_type": "FSDP", "num_processes": 1}, {}, "FSDP is for the pretrain stage only"),
        (
            {"distributed_type": "MULTI_GPU", "num_processes": 4, "num_machines": 2},
            {"from_hub": "somebody/d4"},
            "--from-hub fetches on one machine",
        ),
    ],
)
def test_launch_files_that_are_refused(tmp_path, monkeypatch, launch, options, says):
    monkeypatch.chdir(tmp_path)
    Path("launch.yaml").write_text(yaml.safe_dump(launch))
    with pytest.raises(RecipeError, match=says):
        run(str(ROOT / "recipes/demo"), accelerate_config="launch.yaml", **options)
    assert not Path("runs").exists()
