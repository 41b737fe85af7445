"""Records come back as they were written; older ones and damaged ones are refused with a line that helps."""

import json
from dataclasses import fields

import pytest
from records import a_record, write_results

from nanohf import console
from nanohf.cli import main
from nanohf.errors import RecipeError
from nanohf.runs import run_folder as runs
from nanohf.runs.stage_record import SCHEMA_VERSION, EvaluationRecord, StageRecord

# As version 1 wrote it, cut short.
OLD = {"stage": "sft", "finished": "2026-01-01T00:00:00+00:00", "peak_memory": 5, "chars_per_token": 3.0}
DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"3",
    b"null",
    b"\xff\xfe{",
    b'{"schema_version": 2}',
    b'{"schema_version": 2, "stage": "sft"}',
]


@pytest.fixture
def stage_json(tmp_path):
    (tmp_path / "sft").mkdir()
    return tmp_path / "sft/stage.json"


def test_a_record_comes_back_as_it_was(stage_json):
    record = a_record(peak_memory_bytes=7, losses=[[1, 0.5]], seconds_by_phase={"reward": 0.25})
    record.write(stage_json)
    assert json.loads(stage_json.read_text())["schema_version"] == SCHEMA_VERSION
    assert StageRecord.read(stage_json) == record
    assert not list(stage_json.parent.glob(".*")), "nothing half written is left"


def test_a_key_of_a_later_nanohf_is_passed_over(stage_json):
    record = a_record()
    record.write(stage_json)
    stage_json.write_text(json.dumps(json.loads(stage_json.read_text()) | {"moon_phase": "full"}))
    assert StageRecord.read(stage_json) == record


@pytest.mark.parametrize(("written", "version"), [(OLD, 1), (OLD | {"schema_version": 3}, 3)])
def test_another_version_is_refused(stage_json, tmp_path, written, version):
    stage_json.write_text(json.dumps(written))
    says = rf"sft/stage\.json has schema_version {version}; this nanohf reads {SCHEMA_VERSION}\. Run the stage again"
    with pytest.raises(RecipeError, match=says):
        runs.done(tmp_path, "sft")


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_refused(stage_json, tmp_path, content):
    stage_json.write_bytes(content)
    with pytest.raises(
        RecipeError, match=r"sft/stage\.json is damaged: .*Delete the file and run its stage again"
    ) as e:
        runs.done(tmp_path, "sft")
    assert len(e.value.messages) == 1


@pytest.mark.parametrize("content", [*DAMAGED, json.dumps({"stages": {}, "conversation": ""}).encode()])
def test_damaged_and_old_results_are_refused(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(RecipeError, match=r"results\.json (is damaged|has schema_version 1)"):
        runs.evaluated(tmp_path)


def test_nothing_is_no_damage(tmp_path):
    assert runs.done(tmp_path, "sft") is None
    assert runs.evaluated(tmp_path) is None


@pytest.mark.parametrize("argv", [["run", "recipes/demo"], ["push", "runs/demo", "--to", "a/b"], ["chat", "runs/demo"]])
@pytest.mark.parametrize("content", [b"{", json.dumps(OLD).encode()], ids=["damaged", "old"])
def test_every_verb_says_so_and_ends_in_2(tmp_path, monkeypatch, capsys, argv, content):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nanohf.pipeline.launch", lambda command: pytest.fail("a stage was started"))
    (tmp_path / "runs/demo/sft").mkdir(parents=True)
    (tmp_path / "runs/demo/sft/stage.json").write_bytes(content)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "runs/demo/sft/stage.json" in error
    assert "Traceback" not in error


def test_from_does_it_again_all_the_same(tmp_path, stage_json):
    """A record that cannot be read does not keep its stage from being set aside."""
    stage_json.write_text(json.dumps(OLD))
    old = runs.set_aside(tmp_path, "sft")
    assert json.loads((old / "stage.json").read_text()) == OLD
    assert runs.done(tmp_path, "sft") is None


def test_results_are_of_the_stages_as_they_are(tmp_path, stage_json):
    a_record().write(stage_json)
    write_results(tmp_path, {"sft": {"bpb": 1.0}})
    assert runs.evaluated(tmp_path).stages == {"sft": {"bpb": 1.0}}
    a_record(finished="later").write(stage_json)
    assert runs.evaluated(tmp_path) is None


def test_units_stand_in_the_names():
    names = {f.name for record in (StageRecord, EvaluationRecord) for f in fields(record)}
    assert {"minutes", "peak_memory_bytes", "tokens_per_second", "characters_per_token", "seconds_by_phase"} <= names


def test_messages_go_to_stderr(stage_json, tmp_path, capsys):
    stage_json.write_text("{")
    assert console.exit_status(lambda: runs.done(tmp_path, "sft") and 0) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
