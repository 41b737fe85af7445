"""When the pipeline publishes, what it says of what it could not, and that saying it costs no stage."""

import os
import shlex

import pytest
from huggingface_hub import HfApi
from records import FIGURES, write_results

from nanohf import pipeline
from nanohf.cli import main
from nanohf.errors import PushError
from nanohf.hub import publish as hub
from nanohf.recipe.loading import Recipe
from nanohf.recipe.schemas import EvaluateConfig, TokenizerConfig
from nanohf.runs import run_folder as runs

SCORES = {"parameters": 5, "bpb": 0.8765, "tasks": {}}


def recipe(run_dir, stage, **publishing) -> Recipe:
    settings = TokenizerConfig(run_dir=str(run_dir), **publishing)
    return Recipe(stage, run_dir / f"{stage}.yaml", {}, settings)


def evaluation(run_dir) -> Recipe:
    return Recipe("evaluate", run_dir / "evaluate.yaml", {}, EvaluateConfig(run_dir=str(run_dir)))


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A run with two finished stages, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for stage in ("tokenizer", "sft"):
        runs.finish(recipe(tmp_path / "toy", stage), FIGURES, lambda folder: (folder / "config.json").write_text("{}"))
    return (tmp_path / "toy").relative_to(tmp_path)


@pytest.fixture
def pushes(monkeypatch):
    """The pushes that would be made: (stage, repo)."""
    made = []

    def push_stage(run_dir, stage, repo_id, private, token, licence):
        made.append((stage, repo_id))
        runs.note_push(run_dir, stage, repo_id if "/" in repo_id else f"tester/{repo_id}")

    monkeypatch.setattr(hub, "push_stage", push_stage)
    return made


@pytest.mark.parametrize("repo", [None, "tester/mine-sft"])
def test_a_stage_is_pushed_once_and_again_when_it_is_made_again(run_dir, pushes, repo):
    wanted = {"sft": recipe(run_dir, "sft", push_to_hub=True, hub_model_id=repo)}
    for _ in range(3):
        assert pipeline.publish("sft", wanted) == []
    assert pushes == [("sft", repo or "toy-sft")]
    runs.finish(wanted["sft"], FIGURES, lambda folder: None)
    assert pipeline.publish("sft", wanted) == []
    assert len(pushes) == 2


def test_a_stage_is_pushed_to_another_repo_if_the_recipe_names_another(run_dir, pushes):
    for repo in ("tester/a-sft", "tester/b-sft"):
        pipeline.publish("sft", {"sft": recipe(run_dir, "sft", push_to_hub=True, hub_model_id=repo)})
    assert pushes == [("sft", "tester/a-sft"), ("sft", "tester/b-sft")]


def test_a_licence_decided_later_is_recorded_and_pushed(run_dir, pushes):
    pipeline.publish("sft", {"sft": recipe(run_dir, "sft", push_to_hub=True)})
    assert runs.done(run_dir, "sft").hub_license is None
    for _ in range(2):
        decided = recipe(run_dir, "sft", push_to_hub=True, hub_license="cc-by-4.0")
        assert pipeline.publish("sft", {"sft": decided}) == []
    assert runs.done(run_dir, "sft").hub_license == "cc-by-4.0"
    assert len(pushes) == 2, "once more, and not a third time"
    assert pipeline.publish("tokenizer", {"tokenizer": recipe(run_dir, "tokenizer", hub_license="mit")}) == []
    assert "license: mit" in (run_dir / "tokenizer/README.md").read_text()


def test_what_is_not_pushed_has_its_card(run_dir, pushes):
    assert pipeline.publish("sft", {"sft": recipe(run_dir, "sft")}) == []
    assert not pushes
    assert "toy-sft" in (run_dir / "sft/README.md").read_text()


def test_a_fault_of_ours_in_a_card_costs_no_stage(run_dir, monkeypatch, capsys):
    def broken(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(hub, "card", broken)
    assert pipeline.publish("sft", {"sft": recipe(run_dir, "sft")}) == ["sft"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def last_commands(run_dir, capsys, unpublished, recipes) -> list[str]:
    assert pipeline.close(run_dir, unpublished, recipes) == 1
    first, *commands = capsys.readouterr().err.splitlines()
    assert first == f"error: not published: tokenizer, sft. The results are safe in {run_dir}. Push them with"
    return [command.strip() for command in commands]


def test_the_last_lines_name_every_target(run_dir, capsys):
    def both(first, second):
        return {
            "tokenizer": recipe(run_dir, "tokenizer", hub_model_id=first),
            "sft": recipe(run_dir, "sft", hub_model_id=second),
        }

    stages = ["tokenizer", "sft", "sft"]  # its push failed, and its card after the evaluation too
    commands = last_commands(run_dir, capsys, stages, both("tester/x-tokenizer", "tester/x-sft"))
    assert commands == ["nanohf push toy tokenizer sft --to tester/x"]
    commands = last_commands(run_dir, capsys, stages, both("tester/x-tokenizer", "tester/y-sft"))
    assert commands == ["nanohf push toy tokenizer --to tester/x", "nanohf push toy sft --to tester/y"]
    assert last_commands(run_dir, capsys, stages, both(None, None)) == ["nanohf push toy tokenizer sft --to USER/toy"]
    runs.note_push(run_dir, "sft", "tester/z-sft")  # its card could not be pushed there
    commands = last_commands(run_dir, capsys, stages, {"tokenizer": recipe(run_dir, "tokenizer")})
    assert commands == ["nanohf push toy tokenizer --to USER/toy", "nanohf push toy sft --to tester/z"]


def test_nothing_to_say(run_dir, capsys):
    assert pipeline.close(run_dir, [], {}) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("status", [0, 1])
def test_they_come_too_where_a_later_stage_stops_or_fails(tmp_path, monkeypatch, capsys, status):
    """The launched stage does nothing, as after SIGTERM, or fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe").mkdir()
    for stage in ("tokenizer", "pretrain"):
        (tmp_path / f"recipe/{stage}.yaml").write_text("")
    runs.finish(recipe(tmp_path / "runs/recipe", "tokenizer"), FIGURES, lambda folder: None)

    def refused(*_):
        raise PushError("The token may not write there")

    monkeypatch.setattr(hub, "push_stage", refused)
    monkeypatch.setattr(pipeline, "launch", lambda command: status)
    monkeypatch.setattr(pipeline, "check_resources", lambda *_: None)
    assert main(["run", "recipe", "--until", "pretrain", "--push", "tester/x"]) == 1
    assert capsys.readouterr().err.endswith("  nanohf push runs/recipe tokenizer --to tester/x\n")


def test_a_card_that_says_nothing_new_is_not_pushed(run_dir, monkeypatch):
    """A finished run that is run again, without a network, has nothing to do."""
    runs.note_push(run_dir, "sft", "tester/toy-sft")
    write_results(run_dir, {"sft": SCORES})
    hub.write_card(run_dir / "sft", "sft", "tester/toy-sft")
    monkeypatch.setattr(hub, "HfApi", lambda **_: pytest.fail("the Hub was asked"))
    assert hub.update_card(run_dir, "sft") == "tester/toy-sft"
    assert pipeline.publish("evaluate", {"evaluate": evaluation(run_dir)}) == []


@pytest.mark.hub
@pytest.mark.skipif("127.0.0.1" not in os.environ.get("HF_ENDPOINT", ""), reason="needs a Hub on 127.0.0.1")
def test_on_a_hub_what_was_refused_is_pushed_by_the_command_that_was_said(run_dir, capsys):
    recipes = {"sft": recipe(run_dir, "sft", push_to_hub=True, hub_model_id="somebody/else-sft", hub_license="mit")}
    recipes["tokenizer"] = recipe(run_dir, "tokenizer", push_to_hub=True)
    assert pipeline.publish("sft", recipes) == ["sft"]
    assert pipeline.publish("tokenizer", recipes) == []
    assert runs.done(run_dir, "tokenizer").pushed_to == "tester/toy-tokenizer"
    capsys.readouterr()
    assert pipeline.close(run_dir, ["sft"], recipes) == 1
    command = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert command == ["nanohf", "push", "toy", "sft", "--to", "somebody/else"]
    assert main([*command[1:-1], "tester/ours"]) == 0
    assert runs.done(run_dir, "sft").pushed_to == "tester/ours-sft"
    assert "README.md" in HfApi().list_repo_files("tester/ours-sft")

    write_results(run_dir, {"sft": SCORES})
    everything = recipes | {"evaluate": evaluation(run_dir)}
    assert pipeline.publish("evaluate", everything) == []
    titles = [commit.title for commit in HfApi().list_repo_commits("tester/ours-sft")]
    assert titles[0] == "sft: card after evaluation"
    assert pipeline.publish("evaluate", everything) == []
    assert [commit.title for commit in HfApi().list_repo_commits("tester/ours-sft")] == titles
