"""A run continues from what was pushed, in an empty folder, and ends as if it had never been interrupted."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from records import FIGURES, a_recipe
from safetensors.torch import load_file
from small_run import COMMAND, ENVIRONMENT

from nanohf.cli import main
from nanohf.errors import RecipeError
from nanohf.hub.fetch import fetch, model_folder
from nanohf.hub.publish import push_stage
from nanohf.runs import run_folder as runs
from nanohf.runs.checkpoint_files import numbered, put_in_place
from nanohf.runs.stage_record import write_json

pytestmark = [
    pytest.mark.hub,
    pytest.mark.skipif("127.0.0.1" not in os.environ.get("HF_ENDPOINT", ""), reason="needs a Hub on 127.0.0.1"),
]
ONLINE = {key: value for key, value in ENVIRONMENT.items() if key != "HF_HUB_OFFLINE"}


def nanohf_run(cwd: Path, *options: str) -> str:
    done = subprocess.run([*COMMAND, *options], cwd=cwd, env=ONLINE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def same_weights(folder: Path, other: Path) -> bool:
    weights, others = (load_file(f / "model.safetensors") for f in (folder, other))
    return weights.keys() == others.keys() and all((weights[name] == others[name]).all() for name in weights)


@pytest.mark.slow
def test_a_run_that_ended_after_midtrain_continues_from_the_hub(finished, tmp_path):
    """The result is that of the uninterrupted run, to the bit, and so are its scores."""
    run = tmp_path / "first/runs/demo"  # a copy: where a stage was pushed to is part of its record
    shutil.copytree(finished[0] / "runs/demo", run)
    for stage in ("tokenizer", "pretrain", "midtrain"):
        push_stage(run, stage, f"tester/go-{stage}")
    said = nanohf_run(tmp_path, "--from-hub", "tester/go", "--name", "elsewhere")
    assert said.count("done already") == 3
    assert "it was made with another" not in said
    there = tmp_path / "runs/elsewhere"
    assert all(same_weights(run / stage, there / stage) for stage in ("pretrain", "midtrain", "sft", "grpo"))
    results, others = (json.loads((folder / "results.json").read_text())["stages"] for folder in (run, there))
    assert results == others
    assert "base_model: tester/go-midtrain" in (there / "sft/README.md").read_text()
    assert runs.done(there, "midtrain").data == runs.done(run, "midtrain").data
    stages = [json.loads(line)["stage"] for line in (there / "ledger.jsonl").read_text().splitlines()]
    assert stages == ["tokenizer", "pretrain", "midtrain", "sft", "grpo", "evaluate"]
    assert nanohf_run(tmp_path, "--from-hub", "tester/go", "--name", "elsewhere").count("done already") == 6


@pytest.mark.slow
def test_pretraining_continues_from_its_checkpoint_on_the_hub(finished, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    command = [*COMMAND, "--name", "killed", "--until", "pretrain"]
    process = subprocess.Popen(command, cwd=tmp_path / "here", env=ENVIRONMENT, start_new_session=True)
    checkpoints = runs.checkpoints(tmp_path / "here/runs/killed", "pretrain")
    while not numbered(checkpoints):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    newest, api = numbered(checkpoints)[-1], HfApi()
    assert {path.suffix for path in newest.iterdir()} == {".json", ".safetensors"}, (
        "nothing that is run when it is read"
    )
    push_stage(tmp_path / "here/runs/killed", "tokenizer", "tester/cut-tokenizer")
    revision = f"checkpoint-{int(newest.name.rpartition('-')[2])}"
    upload_checkpoint(api, newest, "tester/cut-pretrain", revision)
    options = ("--from-hub", f"tester/cut@{revision}", "--name", "elsewhere", "--until", "pretrain")
    assert "resumed from step" in nanohf_run(tmp_path / "there", *options)
    there = tmp_path / "there/runs/elsewhere/pretrain"
    assert same_weights(finished[0] / "runs/demo/pretrain", there)
    assert runs.done(there.parent, "pretrain").tokens == runs.done(finished[0] / "runs/demo", "pretrain").tokens


def upload_checkpoint(api: HfApi, folder: Path, repo_id: str, revision: str) -> None:
    api.create_repo(repo_id, exist_ok=True)
    api.create_branch(repo_id, branch=revision)
    api.upload_folder(repo_id=repo_id, folder_path=folder, path_in_repo="checkpoint", revision=revision)


def pushed(run_dir: Path, repo: str, *stages: str) -> None:
    for stage in stages:

        def write(folder: Path) -> None:
            (folder / "config.json").write_text("{}")
            (folder / "model.safetensors").write_bytes(b"weights")

        runs.finish(a_recipe(run_dir, stage, hub_license="mit"), FIGURES, write)
        push_stage(run_dir, stage, f"{repo}-{stage}")


def test_which_stages_are_fetched(tmp_path):
    pushed(tmp_path / "a", "tester/which", "pretrain", "midtrain", "sft")
    assert fetch("tester/which", tmp_path / "all") == "sft"
    assert fetch("tester/which-midtrain", tmp_path / "two") == "midtrain"
    assert not (tmp_path / "two/sft").exists()
    assert runs.done(tmp_path / "two", "midtrain").fetched_from == "tester/which-midtrain"
    HfApi().create_tag("tester/which-midtrain", tag="v1")
    pushed(tmp_path / "b", "tester/which", "midtrain")
    assert fetch("tester/which-midtrain@v1", tmp_path / "tagged") == "midtrain"
    assert runs.done(tmp_path / "tagged", "midtrain").finished == runs.done(tmp_path / "a", "midtrain").finished


def test_a_stage_of_an_earlier_run_is_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "now", lambda: "2026-01-02T00:00:00+00:00")
    pushed(tmp_path / "a", "tester/old", "pretrain", "sft")
    monkeypatch.setattr(runs, "now", lambda: "2026-02-03T00:00:00+00:00")
    pushed(tmp_path / "a", "tester/old", "pretrain")
    assert fetch("tester/old", tmp_path / "b") == "pretrain"
    assert "tester/old-sft is left out: it was finished before pretrain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("tester/nothing-here", "there is no tester/nothing-here-tokenizer on the Hub"),
        ("tester/nothing-sft", "there is no tester/nothing-sft on the Hub"),
        ("nothing", "write USER/NAME, USER/NAME-STAGE or USER/NAME@checkpoint-STEP"),
        ("tester/x-sft@checkpoint-4", "only pretraining's checkpoints"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, source, says):
    with pytest.raises(RecipeError, match=says):
        fetch(source, tmp_path / "a")


def test_nothing_pickled_is_fetched(tmp_path):
    """Neither a checkpoint with a pickle in it nor a stage whose weights are one."""
    api = HfApi()
    pushed(tmp_path / "a", "tester/bad", "tokenizer")
    partial = tmp_path / "partial"
    partial.mkdir()
    write_json(partial / "progress.json", {"step": 4})
    (partial / "optimizer.bin").write_bytes(b"a pickle")
    put_in_place(partial, tmp_path / "step-00000004")
    upload_checkpoint(api, tmp_path / "step-00000004", "tester/bad-pretrain", "checkpoint-4")
    with pytest.raises(RecipeError, match=r"has optimizer\.bin: only safetensors and JSON"):
        fetch("tester/bad@checkpoint-4", tmp_path / "b")
    with pytest.raises(RecipeError, match="there is no tester/bad-pretrain@checkpoint-5"):
        fetch("tester/bad@checkpoint-5", tmp_path / "b")
    pushed(tmp_path / "a", "tester/pickled", "sft")
    api.delete_file("model.safetensors", "tester/pickled-sft")
    api.upload_file(path_or_fileobj=b"a pickle", path_in_repo="pytorch_model.bin", repo_id="tester/pickled-sft")
    with pytest.raises(RecipeError, match="has no weights in safetensors"):
        fetch("tester/pickled-sft", tmp_path / "c")
    assert not list(tmp_path.glob("c/*"))


def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "recipes/demo", "--from-hub", "tester/nobody-was-here"]) == 2
    assert "there is no tester/nobody-was-here-tokenizer on the Hub" in capsys.readouterr().err
    assert main(["run", "recipes/demo", "--from-hub", "tester/x", "--from", "sft"]) == 2
    assert "--from-hub USER/NAME-STAGE says where to continue" in capsys.readouterr().err
    pushed(tmp_path / "a", "tester/alone", "midtrain")
    assert main(["run", "recipes/demo", "--from-hub", "tester/alone"]) == 2
    assert "evaluate needs pretrain, which is not finished in runs/demo" in capsys.readouterr().err
    assert main(["run", "recipes/demo", "--from-hub", "tester/alone", "--until", "pretrain"]) == 2
    assert "nothing is left to do after midtrain, which is on the Hub" in capsys.readouterr().err


def test_what_convert_reads(tmp_path, monkeypatch, capsys):
    """A model at a revision, without its pickles; a folder is itself."""
    monkeypatch.chdir(tmp_path)
    pushed(tmp_path / "a", "tester/conv", "sft")
    api = HfApi()
    api.create_tag("tester/conv-sft", tag="v1")
    for name in ("model.safetensors", "training_args.bin"):
        api.upload_file(path_or_fileobj=b"other", path_in_repo=name, repo_id="tester/conv-sft")
    for at, content in (("", b"other"), ("@v1", b"weights")):
        found = Path(model_folder(f"tester/conv-sft{at}"))
        assert (found / "model.safetensors").read_bytes() == content
        assert not list(found.glob("*.bin"))
    Path("tester/conv-sft").mkdir(parents=True)
    assert model_folder("tester/conv-sft") == "tester/conv-sft"
    assert main(["convert", "tester/nobody@v1", "x"]) == 2
    assert "tester/nobody@v1: no such folder, and no such model on the Hub" in capsys.readouterr().err
