"""scripts/job.py: what its head says to uv, and that it runs a recipe with the nanohf that is installed."""

import os
import re
import runpy
import subprocess
import sys
import tomllib

import pytest
from huggingface_hub import HfApi
from small_run import ENVIRONMENT, ROOT

JOB = ROOT / "scripts/job.py"
# As PEP 723 has it.
BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
SMALL = ["recipes/demo", "--until", "tokenizer", "--set", "tokenizer.vocab_size=512", "--set"]
SMALL += ["tokenizer.max_chars=100000"]


def test_its_head_installs_this_project():
    (block,) = BLOCK.finditer(JOB.read_text(encoding="utf-8"))
    assert block["type"] == "script"
    head = tomllib.loads("".join(line[2:] for line in block["content"].splitlines(keepends=True)))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert head == {
        "requires-python": project["requires-python"],
        "dependencies": [f"{project['name']} @ git+{project['urls']['Repository']}"],
    }


@pytest.mark.parametrize(
    ("arguments", "token", "status", "says"),
    [
        (SMALL, "hf_x", 2, "add --push USER/NAME"),
        ([*SMALL, "--push", "tester/x"], None, 2, "hf jobs uv run --secrets HF_TOKEN"),
        (["recipes/nowhere", "--push=tester/x"], "hf_x", 2, "recipes/nowhere: no such recipe folder"),
    ],
)
def test_what_could_not_end_well_does_not_begin(tmp_path, monkeypatch, capsys, arguments, token, status, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", token or "")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    assert runpy.run_path(str(JOB))["job"](arguments) == status
    assert says in capsys.readouterr().err


@pytest.mark.hub
@pytest.mark.skipif("127.0.0.1" not in os.environ.get("HF_ENDPOINT", ""), reason="needs a Hub on 127.0.0.1")
def test_it_runs_and_pushes(tmp_path):
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "HF_HUB_OFFLINE"}
    command = [sys.executable, str(JOB), *SMALL, "--push", "tester/job"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "stage.json" in HfApi().list_repo_files("tester/job-tokenizer")
