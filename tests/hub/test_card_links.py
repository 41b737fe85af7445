"""Nothing on a pushed card is dead: links lead to what is there, and commands and code run as they stand."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from markdown_it import MarkdownIt
from safetensors.torch import load_file
from small_run import ENVIRONMENT

from nanohf import cli
from nanohf.hub.publish import push_stage, update_card
from nanohf.recipe.stage_names import RESULT_STAGES

pytestmark = [
    pytest.mark.hub,
    pytest.mark.skipif("127.0.0.1" not in os.environ.get("HF_ENDPOINT", ""), reason="needs a Hub on 127.0.0.1"),
]
KNOWN = ("https://github.com/karpathy/nanochat", "https://github.com/EleutherAI/lm-evaluation-harness")
ONLINE = {key: value for key, value in ENVIRONMENT.items() if key != "HF_HUB_OFFLINE"}
ONLINE["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def cards(finished, tmp_path_factory):
    """The cards of all stages of a run, as they are on the Hub after its evaluation."""
    run = tmp_path_factory.mktemp("cards") / "runs/demo"  # a copy: where a stage was pushed to is part of its record
    shutil.copytree(finished[0] / "runs/demo", run)
    for stage in RESULT_STAGES:
        push_stage(run, stage, f"tester/cards-{stage}")
        update_card(run, stage)
    return {stage: ModelCard.load(f"tester/cards-{stage}") for stage in RESULT_STAGES}


def tokens_of(card: ModelCard):
    tokens = MarkdownIt("commonmark").enable("table").parse(card.text)
    return [part for token in tokens for part in (token, *(token.children or []))]


def blocks(card: ModelCard, language: str) -> list[str]:
    return [token.content for token in tokens_of(card) if token.type == "fence" and token.info == language]


def commands(card: ModelCard) -> list[str]:
    """Those in blocks, and those that stand in the text."""
    spans = [token.content for token in tokens_of(card) if token.type == "code_inline"]
    lines = [line for block in blocks(card, "bash") for line in block.splitlines()]
    return [part for line in lines for part in line.split(" && ")] + [s for s in spans if s.startswith("nanohf ")]


@pytest.mark.parametrize("stage", RESULT_STAGES)
def test_every_link_leads_somewhere(cards, stage):
    files = HfApi().list_repo_files(f"tester/cards-{stage}")
    links = [
        t.attrs.get("href") or t.attrs.get("src") for t in tokens_of(cards[stage]) if t.type in ("link_open", "image")
    ]
    for link in links:
        if not str(link).startswith("http"):
            assert link in files, link
        elif repo := re.fullmatch(r"https://huggingface\.co/([\w.-]+/[\w.-]+)", link):
            assert HfApi().repo_exists(repo[1]), link
        else:
            assert link in KNOWN, link
    assert ("curves.svg" in links) == (stage != "tokenizer")
    if stage in ("midtrain", "sft", "grpo"):
        assert any("huggingface.co/tester/cards-" in link for link in links), "its parent"
    for name in re.findall(r"`([\w.]+\.(?:py|json))`", cards[stage].text):
        assert name in files, name
    before = RESULT_STAGES[: RESULT_STAGES.index(stage) + 1]
    assert {f for f in files if f.startswith("recipe/")} == {f"recipe/{one}.yaml" for one in before}


@pytest.mark.parametrize("stage", RESULT_STAGES)
def test_every_command_is_one_there_is(cards, stage, monkeypatch):
    """nanohf's are read by its own parser, which refuses unknown verbs and flags; others are programs it installs."""
    asked = []
    monkeypatch.setattr(cli.console, "exit_status", lambda work: asked.append(work) or 0)
    for command in commands(cards[stage]):
        program, *arguments = shlex.split(command)
        assert (Path(sys.executable).parent / program).is_file(), command
        if program == "nanohf":
            assert cli.main(arguments) == 0
    assert asked
    assert all(isinstance(work.args[0], argparse.Namespace) for work in asked)


@pytest.mark.parametrize("stage", RESULT_STAGES)
def test_the_metadata_is_true(cards, stage):
    data = cards[stage].data
    assert cards[stage].validate() is None
    assert (data.license, data.language) == ("apache-2.0", ["en"])
    parents = {"midtrain": "pretrain", "sft": "midtrain", "grpo": "sft"}
    assert data.base_model == (f"tester/cards-{parents[stage]}" if stage in parents else None)
    assert "not measured" not in cards[stage].text


@pytest.mark.parametrize("stage", ["tokenizer", "pretrain", "grpo"])
def test_the_code_runs(cards, stage, tmp_path):
    (code,) = blocks(cards[stage], "python")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ONLINE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def shell(command: str, cwd: Path) -> str:
    done = subprocess.run(command, shell=True, cwd=cwd, env=ONLINE, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_scoring_command_scores(cards, tmp_path):
    (command,) = (c for c in commands(cards["pretrain"]) if c.startswith("lm_eval"))
    assert "arc_easy" in shell(f"{command} --limit 2", tmp_path)


def test_the_command_that_makes_it_again_makes_the_same(finished, cards, tmp_path):
    (block,) = (b for b in blocks(cards["pretrain"], "bash") if "nanohf run" in b)
    shell(block, tmp_path)
    folders = (finished[0] / "runs/demo/pretrain", tmp_path / "runs/cards-pretrain/pretrain")
    weights, again = (load_file(folder / "model.safetensors") for folder in folders)
    assert all((weights[name] == again[name]).all() for name in weights)


def test_chat_answers_from_the_hub_at_a_revision(cards, tmp_path):
    HfApi().create_tag("tester/cards-grpo", tag="v1")
    answers = [shell(f"nanohf chat {name} --prompt 'What is 2 + 3?' --max-new-tokens 8", tmp_path) for name in (
        "tester/cards-grpo", "tester/cards-grpo@v1",
    )]  # fmt: skip
    assert answers[0] == answers[1]
