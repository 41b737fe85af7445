"""Every command of README.md, CONTRIBUTING.md and docs/ is run, on a small finished run in place of the demo's.

`make docs-check` runs the demo itself as well.
"""

import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_run import ENVIRONMENT, ROOT

from nanohf.recipe.loading import kinds_of_keys, load_recipe, typed
from nanohf.recipe.stage_names import STAGES

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}


def commands(text: str) -> list[str]:
    blocks = [block for language, block in BLOCK.findall(text) if language == "bash"]
    return [line.partition("    #")[0].strip() for block in blocks for line in block.splitlines()]


COMMANDS = commands(README)
MADE_BY_MAKE = {"make demo", "make test"}  # tests of the recipe and these very tests
NEEDS_A_HUB = {c for c in COMMANDS if "push" in c}


def execute(command: str, cwd: Path, environment: dict) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        shlex.split(command), cwd=cwd, env=environment | {"PATH": path}, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout + result.stderr


def test_the_readme_has_the_commands_this_file_knows():
    assert len(COMMANDS) == 14
    assert len(NEEDS_A_HUB) == 2
    assert set(COMMANDS) >= MADE_BY_MAKE


IN_DOCS = [command for text in DOCS.values() for command in commands(text)]


@pytest.mark.parametrize("command", [c for c in COMMANDS + IN_DOCS if c not in MADE_BY_MAKE | NEEDS_A_HUB])
def test_command(finished, command):
    if "my_texts" in command:
        (finished[0] / "my_texts").mkdir()
        stories = (" ".join(random.Random(i).choices(dir(str) + dir(os) + dir(sys), k=20)) for i in range(500))
        (finished[0] / "my_texts/a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in stories))
    if command.startswith("source"):
        pytest.skip("the tests run inside the environment that this command enters")
    execute(command, finished[0], ENVIRONMENT)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_do_what_the_readme_says(target):
    plan = execute(f"make -n {target}", ROOT, ENVIRONMENT)
    assert {"demo": "nanohf run recipes/demo", "test": "pytest"}[target] in plan


@pytest.mark.parametrize("code", [block for language, block in BLOCK.findall(README) if language == "python"])
def test_python(finished, code):
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=finished[0], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_yaml_examples_are_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_texts").mkdir()
    (tmp_path / "my_texts/a.jsonl").write_text('{"text": "a story"}\n' * 200)
    for language, block in BLOCK.findall(README):
        if language == "yaml":
            (tmp_path / "t.yaml").write_text(block)
            load_recipe("tokenizer", ["--config", "t.yaml", "--vocab_size", "512"])


RECIPES = [(name, block) for name, text in DOCS.items() for kind, block in BLOCK.findall(text) if kind == "yaml"]


@pytest.mark.parametrize(("page", "recipe"), RECIPES)
def test_keys_in_the_docs_are_known(page, recipe):
    keys = yaml.safe_load(recipe)
    stage = keys.get("stage", page if page in STAGES else "pretrain")
    if base := keys.pop("base", None):
        assert (ROOT / "recipes" / base).is_file()
    assert typed(keys, {}, kinds_of_keys(stage))


def test_paths_that_the_docs_name_exist():
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), *DOCS.values()):
        for path in re.findall(r"`((?:nanohf|recipes|accelerate_configs|benchmarks|docs|tests)/[\w./]*)`", text):
            assert (ROOT / path).exists(), path


@pytest.mark.hub
def test_push_command(finished):
    if "HF_TOKEN" not in os.environ or "127.0.0.1" not in os.environ.get("HF_ENDPOINT", ""):
        pytest.skip("needs a Hub of its own at HF_ENDPOINT")
    (command,) = (c for c in NEEDS_A_HUB if c.startswith("nanohf push"))
    online = {k: v for k, v in ENVIRONMENT.items() if k != "HF_HUB_OFFLINE"}
    output = execute(command.replace("USER", "tester"), finished[0], online)
    assert "tester/nanohf-demo-grpo" in output
