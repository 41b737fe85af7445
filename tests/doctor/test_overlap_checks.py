"""Test rows that stand in training data are counted by the doctor, whichever stage trains on them."""

import json
import shutil
from pathlib import Path

import pytest
from small_run import ROOT

from nanohf.doctor.overlap_checks import overlaps
from nanohf.recipe.recipe_folder import find_recipe_folder, load_all, stage_arguments

MINE = "  - {dataset: mine, split: train, converter: gsm8k}\n"
LADDER = "word_problems: [{dataset: mine, split: train, held_out: 0.2}]\n"


def rows(count: int, first: str) -> list[dict]:
    """No two of them share a window: there is a place of its own in each."""
    ask = "At the {0} in the old {0} there are {1} plums and {2} more came today, how many {0} plums now?"
    syllables = [a + b for a in "aeiou" for b in "bcdfgklmnprstvz"]
    return [
        {"question": ask.format(first + syllables[i], i + 2, i + 3), "answer": f"{2 * i + 5}\n#### {2 * i + 5}"}
        for i in range(count)
    ]


def edit(stage: str, before: str, after: str) -> None:
    path = Path(f"recipe/{stage}.yaml")
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """own(train, test, *overrides): the results for a copy of the demo recipe beside a folder `mine`, the test."""
    shutil.copytree(ROOT / "recipes/demo", tmp_path / "recipe")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    edit("sft", "rows: 7473", "rows: 20")
    edit("sft", "  - {dataset: builtin, converter: document, share: 0.1}\n", "")

    def results(train: list[dict], test: list[dict], *overrides: str) -> list:
        for split, part in (("train", train), ("test", test)):
            Path(f"mine/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        folder, stages = find_recipe_folder("recipe"), ("sft", "grpo", "evaluate")
        given = {stage: stage_arguments(folder, Path("runs/x"), stage, list(overrides), None) for stage in stages}
        return list(overlaps(load_all(given)))

    return results


def test_copies_with_other_numbers_in_what_grpo_reads(own):
    train, test = rows(40, "t"), rows(40, "s")
    mine = ("grpo.dataset=mine", "evaluate.dataset=mine")
    assert [str(result) for result in own(train, test, *mine)] == [
        "ok    evaluate: rows of mine in training data (0 of 40; 3 sources, 10,000 rows or 10 MB of each)"
    ]
    train[0]["question"] = test[7]["question"]
    train[1]["question"] = test[9]["question"].replace("11 plums", "1,100 plums").replace("12 more", "90 more")
    (result,) = own(train, test, *mine)
    assert result.status == "warn"
    assert result.figure.startswith("2 of 40, 1 as written: 2 in mine train; 3 sources")
    assert "first: row 7" in result.why


def test_one_row_in_a_hundred_is_said_but_moves_no_score_by_a_point(own):
    edit("sft", "mixture:\n", f"mixture:\n{MINE}")
    train, test = rows(10, "t"), rows(60, "s") + rows(60, "r")
    train[0]["question"] = test[3]["question"]
    (result,) = own(train, test, "evaluate.dataset=mine")
    assert result.status == "ok"
    assert result.figure.startswith("1 of 120, 1 as written: 1 in mine train; ")


def test_what_sft_forgets_to_hold_out(own):
    """grpo and evaluate agree on the fifth that is kept apart; sft trains on all."""
    edit("evaluate", "dataset: builtin\n", LADDER)
    edit("grpo", "dataset: builtin\ndataset_rows: 7473\n", LADDER)
    train = rows(60, "t")
    assert own(train, [])[0].status == "ok"
    edit("sft", "mixture:\n", f"mixture:\n{MINE}")
    (result,) = own(train, [])
    held = int(result.figure.partition(" ")[0])
    assert 0 < held < 30
    assert result.figure.startswith(f"{held} of {held}, {held} as written: {held} in mine train; ")
    assert result.status == "warn"
    edit("sft", "gsm8k}", "gsm8k, held_out: 0.2}")
    assert own(train, [])[0].status == "ok"


def test_what_the_package_makes_is_not_looked_for(own):
    assert own([], []) == []
