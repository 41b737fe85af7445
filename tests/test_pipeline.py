"""The whole chain, small: run, killed and resumed, loaded where nanohf is not installed, and reported."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file
from small_run import COMMAND, ENVIRONMENT, ROOT, nanohf_run


def kill_when(cwd: Path, appears: str, *options: str) -> None:
    """Starts the run and ends all its processes with SIGKILL as soon as a path is there and not empty."""
    process = subprocess.Popen(
        [*COMMAND, *options], cwd=cwd, env=ENVIRONMENT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(2400):
        if any(path.stat().st_size for path in cwd.glob(appears)):
            break
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_it_leaves_every_stage_and_a_report(finished):
    cwd, output = finished
    run = cwd / "runs/demo"
    assert {p.name for p in run.iterdir()} >= {
        "tokenizer", "pretrain", "midtrain", "sft", "grpo", "report.md", "results.json", "ledger.jsonl"
    }  # fmt: skip
    report = (run / "report.md").read_text()
    assert report in output
    for words in ("| stage | minutes |", "| grpo |", "pass@1", "assistant: ", "nanohf chat runs/demo"):
        assert words in report
    pictures = [link for link in re.findall(r"!\[\w+\]\((.+)\)", report) if (run / link).is_file()]
    assert pictures == [f"{stage}/curves.svg" for stage in ("pretrain", "midtrain", "sft", "grpo")]
    costs = [line for line in report.splitlines() if line.endswith(" |") and " MiB | " in line]
    assert [line.split(" | ")[0] for line in costs] == ["| tokenizer", "| pretrain", "| midtrain", "| sft", "| grpo"]
    assert not list(run.glob(".*.partial"))
    assert not any((run / "checkpoints").iterdir())
    stages = [json.loads(line)["stage"] for line in (run / "ledger.jsonl").read_text().splitlines()]
    assert stages == ["tokenizer", "pretrain", "midtrain", "sft", "grpo", "evaluate"]


def test_results_hold_every_stage_by_the_same_measures(finished):
    results = json.loads((finished[0] / "runs/demo/results.json").read_text())
    assert list(results["stages"]) == ["pretrain", "midtrain", "sft", "grpo"]
    for scores in results["stages"].values():
        assert 0 < scores["bpb"] < 10
        assert scores["word_problems"]["builtin"]["n"] == 8
        low, high = scores["word_problems"]["builtin"]["pass@1"][1:]
        assert 0 <= low < high <= 1
        assert set(scores["tasks"]) == {"nanohf_toy_problems", "nanohf_toy_choices"}


def test_a_second_run_does_nothing_again(finished):
    cwd, _ = finished
    before = {p: p.stat().st_mtime for p in cwd.glob("runs/demo/*/model.safetensors")}
    output = nanohf_run(cwd, "--name", "demo")
    assert output.count("done already") == 6
    assert {p: p.stat().st_mtime for p in cwd.glob("runs/demo/*/model.safetensors")} == before
    changed = nanohf_run(cwd, "--name", "demo", "--until", "pretrain", "--set", "pretrain.max_steps=61")
    assert "another max_steps" in changed


def test_auto_classes_load_every_stage_without_nanohf(finished):
    code = """
import sys
sys.modules["nanohf"] = None
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
for stage in ("pretrain", "midtrain", "sft", "grpo"):
    folder = f"runs/demo/{stage}"
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type == "nanohf"
    AutoModel.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    chat = [{"role": "user", "content": "Mia has 3 plums and finds 4. How many are that?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert output.shape[1] > inputs["input_ids"].shape[1]
print("loaded")
"""
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=finished[0], env=environment, capture_output=True, text=True
    )
    assert result.stdout.strip() == "loaded", result.stderr


def test_chat_answers(finished):
    command = [sys.executable, "-m", "nanohf.cli", "chat", "runs/demo", "--prompt", "Hello!", "--max-new-tokens", "8"]
    result = subprocess.run(command, cwd=finished[0], env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_killed_in_pretrain_midtrain_and_sft_it_ends_as_if_it_had_not_been(finished, tmp_path):
    options = ("--name", "killed", "--until", "sft")
    for stage, appears in (
        ("pretrain", "step-*30"),
        ("midtrain", "checkpoint-4/trainer_state.json"),
        ("sft", "checkpoint-12/trainer_state.json"),
    ):
        kill_when(tmp_path, f"runs/killed/checkpoints/{stage}/{appears}", *options)
        assert not (tmp_path / f"runs/killed/{stage}").exists()
    output = nanohf_run(tmp_path, *options)
    assert "resumed from checkpoint-" in output
    for stage in ("pretrain", "midtrain", "sft"):
        whole, resumed = finished[0] / "runs/demo" / stage, tmp_path / "runs/killed" / stage
        weights, again = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
        assert all((weights[name] == again[name]).all() for name in weights), stage
        if stage != "pretrain":
            record, record_again = (json.loads((folder / "stage.json").read_text()) for folder in (whole, resumed))
            assert len(record["losses"]) == 6
            for numbers in ("losses", "held_out", "mixture", "before", "after"):
                assert record[numbers] == record_again[numbers], (stage, numbers)
            assert record_again["resumed"]


def test_each_stage_keeps_the_numbers_of_the_one_before_it(finished):
    """Of every held-out source, documents of pretraining among them; the report shows them."""
    run = finished[0] / "runs/demo"
    midtrain, sft = (json.loads((run / f"{stage}/stage.json").read_text())["held_out"] for stage in ("midtrain", "sft"))
    sources = [("builtin conversations test", "loss"), ("builtin problems test", "loss")]
    sources += [("builtin documents validation", "bits per byte")]
    assert [(f["source"], f["metric"]) for f in midtrain] == [(f["source"], f["metric"]) for f in sft] == sources
    assert [f["after"] for f in midtrain] == [f["before"] for f in sft]
    report = (run / "report.md").read_text()
    for (source, metric), a, b in zip(sources, midtrain, sft, strict=True):
        cells = (f"{f['before']:.4f} -> {f['after']:.4f}" for f in (a, b))
        assert f"| {source} | {metric} | {' | '.join(cells)} |" in report
    assert "| builtin problems train | 7,473 |" in report


def test_sft_with_lora_leaves_a_plain_model_whose_blocks_alone_have_changed(finished, tmp_path):
    base = finished[0] / "runs/demo/midtrain"
    command = [sys.executable, "-m", "nanohf.stages.sft", "--config", str(ROOT / "recipes/demo/sft.yaml")]
    command += ["--run_dir", str(tmp_path / "lora"), "--model_name_or_path", str(base), "--use_peft", "true"]
    command += ["--lora_r", "2", "--max_steps", "3"]
    result = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not list((tmp_path / "lora/sft").glob("adapter*"))
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "lora/sft"))
    assert before.keys() == after.keys()
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {name for name in before if ".layers." in name}
    record = json.loads((tmp_path / "lora/sft/stage.json").read_text())
    assert record["parameters"] == json.loads((base / "stage.json").read_text())["parameters"]
    assert record["after"] != record["before"]
