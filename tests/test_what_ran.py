"""Records show what ran, whatever becomes of the recipe; and a push that fails costs no stage."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import ENVIRONMENT

from nanohf.hub.publish import write_card

MIXTURE = """
mixture: [{dataset: builtin, config: conversations, rows: 40, converter: messages}]
eval_mixture: [{dataset: builtin, config: conversations, split: test, rows: 10, converter: messages}]
max_length: 128
max_steps: 2
per_device_train_batch_size: 1
conversations_per_step: 1
"""
RECIPES = {
    "tokenizer": "dataset: builtin\nvocab_size: 320\nmax_chars: 20000\n",
    "pretrain": "dataset: builtin\ndepth: 1\nmax_length: 64\nper_device_train_batch_size: 2\nbatch_tokens: 128\n"
    "max_steps: 2\neval_steps: 2\neval_tokens: 256\ntorch_compile: false\n",
    "midtrain": f"stage: midtrain\nmodel_name_or_path: pretrain{MIXTURE}",
    "sft": f"stage: sft\nmodel_name_or_path: midtrain{MIXTURE}",
}
pytestmark = pytest.mark.slow


@pytest.fixture
def chain(tmp_path):
    """A recipe folder that takes seconds, in an empty directory."""
    (tmp_path / "recipe").mkdir()
    for name, text in RECIPES.items():
        (tmp_path / "recipe" / f"{name}.yaml").write_text(text)
    return tmp_path


def nanohf(cwd: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "nanohf.cli", *argv]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT | environment, capture_output=True, text=True)


def test_a_recipe_edited_while_its_stage_runs_changes_no_record(chain):
    done = nanohf(chain, "run", "recipe", "--name", "mine", "--until", "tokenizer")
    assert done.returncode == 0, done.stderr
    path = chain / "recipe/pretrain.yaml"
    longer = path.read_text().replace("max_steps: 2", "max_steps: 100\nsave_steps: 5\nseed: 7")
    path.write_text(longer.replace("eval_steps: 2", "eval_steps: 100"))
    stage = [sys.executable, "-m", "nanohf.stages.pretrain", "--config", str(path), "--run_dir", "runs/mine"]
    log = chain / "log"
    process = subprocess.Popen(stage, cwd=chain, env=ENVIRONMENT, stderr=log.open("w"))  # a pipe would fill up
    for _ in range(1200):
        if list((chain / "runs/mine/checkpoints/pretrain").glob("step-*")):
            break
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be edited"
    path.write_text(path.read_text().replace("seed: 7", "seed: 8").replace("depth: 1", "depth: 2"))
    assert process.wait(timeout=200) == 0, log.read_text()

    run_dir = chain / "runs/mine"
    record = json.loads((run_dir / "pretrain/stage.json").read_text())
    line = json.loads((run_dir / "ledger.jsonl").read_text().splitlines()[-1])
    write_card(run_dir / "pretrain", "pretrain", "tester/mine-pretrain")
    card = (run_dir / "pretrain/README.md").read_text()
    assert (record["recipe"]["seed"], record["recipe"]["depth"], record["depth"]) == (7, 1, 1)
    assert (line["stage"], line["recipe"]["seed"], line["depth"]) == ("pretrain", 7, 1)
    assert "seed: 7" in card
    assert "seed: 8" not in card


def test_a_push_that_fails_costs_no_stage_and_the_last_lines_say_how_to_push(chain):
    """The Hub is a closed port."""
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_dummy", "HF_HUB_OFFLINE": "0"}
    done = nanohf(chain, "run", "recipe", "--name", "mine", "--push", "tester/mine", "--until", "sft", **nobody)
    assert done.returncode == 1, done.stderr
    for stage in RECIPES:
        assert (chain / f"runs/mine/{stage}/stage.json").is_file(), stage
    last = done.stderr.strip().splitlines()[-2:]
    assert "not published: tokenizer, pretrain, midtrain, sft" in last[0]
    assert last[1] == "  nanohf push runs/mine tokenizer pretrain midtrain sft --to tester/mine"
    assert "hf_dummy" not in done.stdout + done.stderr


@pytest.mark.hub
@pytest.mark.skipif("127.0.0.1" not in os.environ.get("HF_ENDPOINT", ""), reason="needs a Hub on 127.0.0.1")
def test_and_that_command_pushes_them(chain):
    wrong = {"HF_TOKEN": "hf_wrongwrongwrong", "HF_HUB_OFFLINE": "0"}
    done = nanohf(chain, "run", "recipe", "--name", "late", "--push", "tester/late", "--until", "tokenizer", **wrong)
    assert done.returncode == 1
    command = done.stderr.strip().splitlines()[-1].split()
    pushed = nanohf(chain, *command[1:], HF_TOKEN=os.environ["HF_TOKEN"], HF_HUB_OFFLINE="0")
    assert pushed.returncode == 0, pushed.stderr
    assert "tester/late-tokenizer" in pushed.stderr
