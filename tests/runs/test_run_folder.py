"""A run's folder: what is done, what may go on, and that nothing is lost."""

import json

import pytest
from records import FIGURES, a_recipe, write_results

from nanohf.errors import RecipeError
from nanohf.report.run_report import write_report
from nanohf.runs import run_folder as runs


def write(text):
    return lambda folder: (folder / "model.txt").write_text(text)


def finish(run, stage="sft", text="weights"):
    return runs.finish(a_recipe(run, stage, max_steps=3), FIGURES, write(text))


def test_a_stage_is_there_whole_or_not_at_all(tmp_path):
    def fail(folder):
        (folder / "model.txt").write_text("half")
        raise OSError("disk full")

    recipe = a_recipe(tmp_path, max_steps=3)
    runs.claim(recipe)
    with pytest.raises(OSError, match="disk full"):
        runs.finish(recipe, FIGURES, fail)
    assert runs.done(tmp_path, "sft") is None
    assert not (tmp_path / "sft").exists()
    assert runs.checkpoints(tmp_path, "sft").exists()

    finish(tmp_path)
    assert runs.done(tmp_path, "sft").minutes == 1.0
    assert not runs.checkpoints(tmp_path, "sft").exists()
    assert json.loads((tmp_path / "ledger.jsonl").read_text())["stage"] == "sft"


def test_a_line_that_a_killed_run_left_half_costs_no_other(tmp_path):
    finish(tmp_path)
    with (tmp_path / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"stage": "grp')
    finish(tmp_path, "midtrain")
    finish(tmp_path, "grpo")
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in (lines[0], *lines[2:])] == ["sft", "midtrain", "grpo"]


def test_what_is_done_again_is_kept(tmp_path):
    finish(tmp_path, text="old")
    finish(tmp_path, text="new")
    assert (tmp_path / "sft/model.txt").read_text() == "new"
    (old,) = (tmp_path / "previous").glob("sft-*/model.txt")
    assert old.read_text() == "old"
    assert runs.set_aside(tmp_path, "sft").is_dir()
    assert runs.done(tmp_path, "sft") is None


def test_checkpoints_of_another_recipe_are_refused(tmp_path):
    folder = runs.claim(a_recipe(tmp_path, max_steps=3, logging_steps=1))
    (folder / "pass_at_k.json").write_text("[]")
    runs.claim(a_recipe(tmp_path, max_steps=3))
    assert (folder / "pass_at_k.json").is_file()
    runs.claim(a_recipe(tmp_path, max_steps=4))  # nothing is lost yet
    assert not (folder / "pass_at_k.json").exists()  # measured with other settings
    (folder / "checkpoint-1").mkdir()
    runs.claim(a_recipe(tmp_path, max_steps=4, logging_steps=2, keep_optimizer=True))
    with pytest.raises(RecipeError, match=r"another carry_optimizer, lr_scale, max_steps.*--from sft"):
        runs.claim(a_recipe(tmp_path, max_steps=5, lr_scale=1, carry_optimizer=True))


def test_evaluate_is_done_while_the_stages_are_those_it_scored(tmp_path):
    finish(tmp_path)
    assert not runs.is_done(tmp_path, "evaluate")
    write_results(tmp_path, {"sft": {}})
    assert runs.evaluated(tmp_path).stages == {"sft": {}}
    write_results(tmp_path, {"sft": {}}, sft="before")
    assert not runs.is_done(tmp_path, "evaluate")
    assert runs.set_aside(tmp_path, "evaluate").is_file()


def test_the_report_leaves_out_scores_of_a_predecessor(tmp_path):
    runs.finish(a_recipe(tmp_path), FIGURES | {"tokens": 9}, write("weights"))
    scores = {"bpb": 0.5, "word_problems": {"a": {"n": 9, "num_samples": 1, "pass@1": [0.1, 0.0, 0.2]}}, "tasks": {}}
    for finished, scored in ((runs.done(tmp_path, "sft").finished, True), ("before", False)):
        write_results(tmp_path, {"sft": scores}, sft=finished)
        assert ("| sft | 0.5000 |" in write_report(tmp_path)) == scored


def test_resolve(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("sft", "grpo", "mine"):
        (tmp_path / folder).mkdir()
    finish(tmp_path / "run")
    assert runs.resolve("run", "sft") == "run/sft"
    assert runs.resolve("run", "mine") == "mine"
    with pytest.raises(RecipeError, match="no finished stage 'grpo'"):
        runs.resolve("run", "grpo")
    for folder in ("sft", "grpo", "mine"):
        (tmp_path / folder).rmdir()

    finish(tmp_path)
    assert runs.resolve(tmp_path, "sft") == str(tmp_path / "sft")
    assert runs.resolve(tmp_path, "user/name") == "user/name"
    with pytest.raises(RecipeError, match="no finished stage 'grpo'"):
        runs.resolve(tmp_path, "grpo")
