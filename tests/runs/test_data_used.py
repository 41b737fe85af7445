"""What a record says its stage was made from: noted at the start, parents included, kept whatever changes later."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from records import FIGURES

from nanohf.recipe.loading import Recipe, load_recipe
from nanohf.runs import run_folder as runs
from nanohf.runs.data_used import collect, completed, data_of, named_sources, recorded, trained_sources
from nanohf.runs.stage_record import StageRecord

MIXTURE = """
conversations_per_step: 8
mixture:
  - {dataset: chats, rows: 4}
  - {dataset: builtin, config: problems, rows: 5, converter: gsm8k}
  - {dataset: who.yaml, converter: identity}
  - {dataset: chats, epochs: 2, license: cc-by-4.0}
eval_mixture: [{dataset: elsewhere, split: test}]
"""
RECIPES = {
    "tokenizer": "dataset: text\nvocab_size: 320\n",
    "pretrain": "dataset: text\ndepth: 1\n",
    "sft": f"stage: sft\nmodel_name_or_path: pretrain\n{MIXTURE}",
    "grpo": "model_name_or_path: sft\ndataset: problems\nlicense: mit\n",
}


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """Folders of data with cards, and recipes, in the working directory. Nothing of it is on a Hub."""
    monkeypatch.chdir(tmp_path)
    for folder, card in (("text", "license: cc-by-nc-4.0"), ("chats", "license: odc-by"), ("problems", "language: en")):
        Path(folder).mkdir()
        Path(folder, "README.md").write_text(f"---\n{card}\n---\n")
    Path("who.yaml").write_text('exchanges: [{questions: ["Who?"], answers: ["I."]}]\n')
    for stage, text in RECIPES.items():
        Path(f"{stage}.yaml").write_text(text)


def recipe(stage: str, *overrides: str) -> Recipe:
    return load_recipe(stage, ["--config", f"{stage}.yaml", "--run_dir", "runs/a", *overrides])


def done(stage: str, *overrides: str, **figures) -> StageRecord:
    """The stage as it starts and ends, with nothing trained in between."""
    made = recipe(stage, *overrides)
    runs.claim(made)
    runs.finish(made, FIGURES | figures, lambda folder: None)
    return runs.done("runs/a", stage)


def lines(data) -> list[tuple]:
    return [(one.stage, one.dataset, one.licence) for one in data]


TEXT = [("pretrain", "text", "cc-by-nc-4.0"), ("tokenizer", "text", "cc-by-nc-4.0")]
CHATS = [
    ("sft", "chats", "odc-by"),
    ("sft", "builtin", "apache-2.0"),
    ("sft", "who.yaml", "apache-2.0"),
    ("sft", "chats", "cc-by-4.0"),
]


def test_a_record_has_its_own_data_and_what_its_parents_were_made_from():
    assert lines(recorded(done("tokenizer"))) == TEXT[1:]
    assert lines(recorded(done("pretrain", tokens=1000))) == TEXT
    given = [{"rows": rows, "tokens": 10 * rows} for rows in (4, 5, 1, 8)]
    assert lines(recorded(done("sft", mixture=given))) == CHATS + TEXT
    data = recorded(done("grpo", tokens=77))
    assert lines(data) == [("grpo", "problems", "mit"), *CHATS, *TEXT]
    assert data[0].origin == "stated in the recipe"
    assert [(one.rows, one.tokens) for one in data] == [
        (None, None), (4, 40), (5, 50), (1, 10), (8, 80), (None, 1000), (None, None)
    ]  # fmt: skip


def test_tokens_of_a_resumed_stage_are_not_all_of_them():
    assert recorded(done("pretrain", tokens=1000, resumed=True))[0].tokens is None


def test_what_changes_later_changes_no_record():
    done("tokenizer")
    done("pretrain")
    Path("text/README.md").write_text("---\nlicense: mit\n---\n")
    sft = done("sft")
    done("pretrain", "--dataset", "problems")
    shutil.rmtree("text")
    for name, expected in (("tokenizer", TEXT[1:]), ("sft", CHATS + TEXT)):
        assert lines(recorded(completed(Path("runs/a", name)))) == expected
    assert runs.done("runs/a", "sft") == sft


def test_a_resumed_stage_keeps_what_it_started_with_unless_it_was_unknown():
    done("tokenizer")
    Path("problems/README.md").unlink()
    for dataset, before, after in (("text", "cc-by-nc-4.0", "cc-by-nc-4.0"), ("problems", "unknown", "mit")):
        made = recipe("pretrain", "--dataset", dataset)
        runs.claim(made)
        (runs.checkpoints("runs/a", "pretrain") / "step-1").mkdir()
        assert noted()[0]["licence"] == before
        Path(dataset, "README.md").write_text("---\nlicense: mit\n---\n")
        runs.claim(made)
        assert noted()[0]["licence"] == after
        runs.claim(recipe("pretrain", "--dataset", dataset, "--license", "odc-by"))  # does not begin it again
        assert (noted()[0]["licence"], noted()[0]["origin"]) == ("odc-by", "stated in the recipe")
        assert (runs.checkpoints("runs/a", "pretrain") / "step-1").is_dir()
        shutil.rmtree(runs.checkpoints("runs/a", "pretrain"))


def noted() -> list[dict]:
    return json.loads((runs.checkpoints("runs/a", "pretrain") / "data.json").read_text())


def test_a_licence_may_be_added_to_a_mixture_that_has_begun():
    had = {"mixture": [{"dataset": "chats", "rows": 4}]}
    assert runs.changed_keys(had, {"mixture": [{"dataset": "chats", "rows": 4, "license": "mit"}]}) == []
    assert runs.changed_keys(had, {"mixture": [{"dataset": "chats", "rows": 5}]}) == ["mixture"]


def test_an_old_record_is_filled_in_once():
    for stage in ("tokenizer", "pretrain", "sft"):
        written = done(stage)
        path = Path("runs/a", stage, "stage.json")
        replace(written, data=[]).write(path)
        old = json.loads(path.read_text())
        del old["data"], old["hub_license"]
        path.write_text(json.dumps(old))
    assert recorded(runs.done("runs/a", "sft")) == []
    assert lines(data_of(runs.done("runs/a", "sft"), Path("runs/a/sft"))) == CHATS + TEXT
    assert lines(recorded(completed(Path("runs/a/sft")))) == CHATS + TEXT
    Path("chats/README.md").unlink()
    assert lines(recorded(completed(Path("runs/a/sft")))) == CHATS + TEXT


def test_parents_that_are_folders():
    for stage in ("tokenizer", "pretrain"):
        done(stage)
    elsewhere = collect("sft", recipe("sft", "--model_name_or_path", "runs/a/pretrain").written, Path("runs/b"))
    assert lines(elsewhere) == CHATS + TEXT
    Path("plain").mkdir()
    Path("plain/README.md").write_text("---\nlicense: gpl-3.0\n---\n")
    assert lines(collect("grpo", {"model_name_or_path": "plain"}, Path("runs/b")))[1:] == [("grpo", "plain", "gpl-3.0")]
    Path("plain/stage.json").write_text('{"schema_version": 1}')
    (parent,) = collect("grpo", {"model_name_or_path": "plain"}, Path("runs/b"))[1:]
    assert parent.licence == "gpl-3.0", "as of a published result, whose card says what its record cannot"
    Path("plain/README.md").unlink()
    (parent,) = collect("grpo", {"model_name_or_path": "plain"}, Path("runs/b"))[1:]
    assert (parent.licence, parent.origin) == ("unknown", "the folder has no README.md")


def test_a_record_that_leads_back_to_itself_ends():
    done("sft")
    path = Path("runs/a/sft/stage.json")
    record = StageRecord.read(path)
    replace(record, data=[], recipe=record.recipe | {"model_name_or_path": "runs/a/sft"}).write(path)
    assert lines(recorded(completed(path.parent))) == CHATS


def test_a_stage_that_is_not_there():
    (parent,) = collect("grpo", {"model_name_or_path": "sft"}, Path("runs/b"))[1:]
    assert (parent.dataset, parent.licence, parent.origin) == ("sft", "unknown", "the run has no finished stage sft")


def test_licences_are_not_in_the_ledger():
    done("tokenizer")
    assert "data" not in json.loads(Path("runs/a/ledger.jsonl").read_text())


def test_word_problems_of_several_sources():
    """Each is named; held_out of a line is a share kept apart, and what is only measured is another thing."""
    lines = [{"dataset": "a/b", "license": "mit"}, {"dataset": "c/d", "held_out": 0.2}]
    assert trained_sources("grpo", {"word_problems": lines}) == lines
    recipe = {"mixture": lines, "eval_mixture": lines[1:]}
    assert trained_sources("sft", recipe) == lines
    assert named_sources("sft", recipe)[2:] == [lines[1] | {"measured": True}]
