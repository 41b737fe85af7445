"""A card's licence follows from its data, and what is not free is pushed only when its user has decided."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from records import FIGURES, a_record
from small_run import ROOT

from nanohf import pipeline
from nanohf.cli import main
from nanohf.errors import PushError, RecipeError
from nanohf.hub.card import card
from nanohf.hub.licensing import check_push, check_run
from nanohf.hub.publish import push_stage, update_card
from nanohf.recipe.loading import load_recipe
from nanohf.runs import run_folder as runs
from nanohf.runs.data_used import DataUsed

on_hub = pytest.mark.skipif("127.0.0.1" not in os.environ.get("HF_ENDPOINT", ""), reason="needs a Hub on 127.0.0.1")


def used(dataset: str, licence: str, stage: str = "pretrain", place: str = "dataset", **counts) -> dict:
    return asdict(DataUsed(dataset, stage, place, licence, "its card on the Hub, 2026-01-02", **counts))


def section(data: list[dict], **figures) -> tuple[str, str]:
    """A card's licence in its metadata, and what it says of it."""
    text = card(a_record("pretrain", data=data, **figures), None, "tester/x-pretrain")
    return ModelCard(text).data.license, text.partition("## Licence\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("licences", "wins"),
    [
        (["mit", "cc-by-nc-4.0", "cc-by-sa-4.0"], "cc-by-nc-4.0"),
        (["apache-2.0", "odc-by"], "odc-by"),
        (["apache-2.0"], "apache-2.0"),
        (["apache-2.0", "unknown"], "other"),
        ([], "other"),
    ],
)
def test_the_strictest_is_the_cards(licences, wins):
    licence, said = section([used(f"some/set{i}", licence) for i, licence in enumerate(licences)])
    assert licence == wins
    assert f"`{wins}`: the " in said
    assert ("is not known, so this card cannot say what the result may be used for" in said) == (wins == "other")


def test_each_data_set_is_listed_with_licence_rows_and_tokens():
    data = [
        used("builtin", "apache-2.0", place="nanohf"),
        used("some/chats", "mit", "sft", rows=1000, tokens=20_000),
        used("some/chats", "mit", "sft", rows=234, tokens=5),
        used("some/base", "odbl", "sft", place="model"),
        used("/home/alice/my|texts", "cc-by-sa-4.0", place="local"),
    ]
    _, said = section(data, tokens=7)
    read = "its card on the Hub, 2026-01-02"
    assert [line for line in said.splitlines() if line.startswith("|")][2:] == [
        f"| nanohf's builtin toy world | pretrain | `apache-2.0` | {read} | - | 7 |",
        f"| [some/chats](https://huggingface.co/datasets/some/chats) | sft | `mit` | {read} | 1,234 | 20,005 |",
        f"| [some/base](https://huggingface.co/some/base) | sft | `odbl` | {read} | - | - |",
        rf"| ./my\|texts | pretrain | `cc-by-sa-4.0` | {read} | - | - |",
    ]
    assert "may ask for terms of their own: odbl." in said


def test_what_the_user_decided_is_said_to_be_that():
    data = [used("some/set", "cc-by-nc-4.0"), used("other/set", "unknown")]
    licence, said = section(data, hub_license="cc-by-nc-sa-4.0")
    assert licence == "cc-by-nc-sa-4.0"
    for words in (": the publisher's decision.", "it would be `other`", "some of the data is not known"):
        assert words in said
    assert "strictest of the data's" in section(data[:1], hub_license="cc-by-nc-4.0")[1]


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """runs/a with a pretrain and an sft made from non-commercial data, and a folder of data without a card."""
    monkeypatch.chdir(tmp_path)
    nc = used("karpathy/climbmix-400b-shuffle", "cc-by-nc-4.0")
    mine = used("mine", "unknown", "grpo", "local")
    for stage, data in (("pretrain", [nc]), ("sft", [used("openai/gsm8k", "mit", "sft"), nc]), ("grpo", [mine])):
        Path("runs/a", stage).mkdir(parents=True)
        a_record(stage, data=data).write(Path("runs/a", stage, "stage.json"))
    return Path("runs/a")


def test_a_push_of_finished_stages_names_data_licence_and_cure(run_dir, capsys):
    assert main(["push", "runs/a", "--to", "tester/x"]) == 2
    first, second = (line for line in capsys.readouterr().err.splitlines() if "cannot be pushed" in line)
    for words in ("pretrain, sft cannot be pushed", "karpathy/climbmix-400b-shuffle is cc-by-nc-4.0 (non-commercial)"):
        assert words in first
    assert first.endswith("say so: --license cc-by-nc-4.0")
    assert "grpo cannot be pushed: mine is of unknown licence: its card" in second
    assert second.endswith("--license other")
    assert main(["push", "runs/a", "--to", "tester/x", "--license", "cc by nc"]) == 2
    assert "--license='cc by nc' must be a licence as the Hub spells it" in capsys.readouterr().err


def test_what_was_decided_holds(run_dir):
    with pytest.raises(PushError, match=r"climbmix-400b-shuffle is cc-by-nc-4\.0"):
        push_stage(run_dir, "sft", "tester/x-sft")
    assert check_push(run_dir, ["sft"], "cc-by-nc-4.0") == []
    runs.note_licence(run_dir, "sft", "cc-by-nc-4.0")
    assert check_push(run_dir, ["sft"]) == []
    assert check_push(run_dir, ["pretrain", "sft"])[0].startswith("pretrain cannot be pushed")
    update_card(run_dir, "sft")
    assert "the publisher's decision" in (run_dir / "sft/README.md").read_text()


TOKENIZER = "dataset: {dataset}\nvocab_size: 320\nmax_chars: 20000\n"


@pytest.fixture
def recipe_folder(tmp_path, monkeypatch):
    """Recipes of a tokenizer and a pretraining from `my_texts`, a folder with a card of the given licence."""
    monkeypatch.chdir(tmp_path)

    def made(header: str) -> Path:
        for folder in ("recipe", "my_texts"):
            Path(folder).mkdir()
        Path("my_texts/README.md").write_text(f"---\n{header}\n---\n")
        Path("my_texts/a.jsonl").write_text("".join(f'{{"text": "Story {i} of a cat."}}\n' for i in range(2000)))
        Path("recipe/tokenizer.yaml").write_text(TOKENIZER.format(dataset="my_texts"))
        Path("recipe/pretrain.yaml").write_text("dataset: my_texts\ndepth: 1\n")
        return Path("recipe")

    return made


@pytest.fixture
def launched(monkeypatch):
    """The stages that would have been launched; none does anything."""
    modules: list[str] = []
    monkeypatch.setattr(pipeline, "launch", lambda command: modules.append(command[command.index("-m", 3) + 1]) or 0)
    return modules


RUN = ("run", "recipe", "--until", "pretrain")
PUSH = (*RUN, "--push", "tester/x")


@pytest.mark.parametrize(
    ("header", "says", "cure"),
    [
        ("license: cc-by-nc-4.0", "my_texts is cc-by-nc-4.0 (non-commercial)", "cc-by-nc-4.0"),
        ("language: en", "my_texts is of unknown licence: the folder's README.md names no license", "other"),
    ],
)
def test_a_run_refuses_before_any_stage(recipe_folder, launched, capsys, header, says, cure):
    recipe_folder(header)
    assert main([*PUSH]) == 2
    error = capsys.readouterr().err
    assert f"tokenizer, pretrain cannot be pushed: {says}" in error
    assert f"--license {cure} beside --push, or hub_license: {cure} in their recipes" in error
    assert not launched
    assert main([*PUSH, "--set", f"tokenizer.hub_license={cure}"]) == 2
    assert "error: pretrain cannot be pushed" in capsys.readouterr().err
    for decided in (["--license", cure], ["--set", "tokenizer.license=mit", "--set", "pretrain.license=mit"]):
        assert main([*PUSH, *decided]) == 0
        assert launched.pop() == "nanohf.stages.tokenizer"


def test_a_run_that_pushes_nothing_warns_of_unknown_data_once(recipe_folder, launched, capsys):
    recipe_folder("language: en")
    assert main([*RUN]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "licence" in line]
    assert len(warnings) == 1
    assert "tokenizer: dataset='my_texts' is of unknown licence: the folder's README.md names no license" in warnings[0]
    assert "set license: where the recipe names it" in warnings[0]
    Path("my_texts/README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    assert main([*RUN]) == 0
    assert "licence" not in capsys.readouterr().err


@pytest.mark.parametrize("key", ["license", "hub_license"])
def test_a_licence_that_the_hub_does_not_have_is_refused_with_the_recipe(recipe_folder, key, capsys):
    recipe_folder("license: mit")
    assert main([*RUN, "--set", f"tokenizer.{key}=MIT License"]) == 2
    assert f"{key}='MIT License' must be a licence as the Hub spells it" in capsys.readouterr().err
    Path("sft.yaml").write_text("mixture: [{dataset: my_texts, license: free}]\neval_mixture: [{dataset: a}]\n")
    with pytest.raises(RecipeError, match="license='free' must be a licence"):
        load_recipe("sft", ["--config", "sft.yaml"])


MIXTURE = """
stage: {stage}
conversations_per_step: 8
model_name_or_path: {parent}
mixture:
  - {{dataset: openai/gsm8k, config: main, rows: 10, converter: gsm8k}}
  - {{dataset: {chats}, rows: 10}}
eval_mixture: [{{dataset: tester/math-problems, split: test, rows: 5, converter: gsm8k}}]
"""


@pytest.mark.hub
@on_hub
class TestHub:
    @pytest.mark.parametrize(
        ("text", "chats", "licences"),
        [
            ("roneneldan/TinyStories", "allenai/ai2_arc", {"pretrain": "cdla-sharing-1.0", "sft": "cc-by-sa-4.0"}),
            ("HuggingFaceFW/fineweb-edu", "builtin", {"pretrain": "odc-by", "sft": "odc-by"}),
            ("karpathy/climbmix-400b-shuffle", "allenai/ai2_arc", {"pretrain": "cc-by-nc-4.0", "sft": "cc-by-nc-4.0"}),
        ],
    )
    def test_each_cards_licence_is_the_strictest_of_its_datas(self, tmp_path, monkeypatch, text, chats, licences):
        """Records as the stages leave them, without the training; grpo starts from the sft on the Hub."""
        monkeypatch.chdir(tmp_path)
        recipes = {
            "tokenizer": f"dataset: {text}\nvocab_size: 320\n",
            "pretrain": f"dataset: {text}\ndepth: 1\n",
            "midtrain": MIXTURE.format(stage="midtrain", parent="pretrain", chats="builtin, config: problems"),
            "sft": MIXTURE.format(stage="sft", parent="midtrain", chats=f"{chats}, config: ARC-Easy"),
            "grpo": "model_name_or_path: tester/lic-sft\ndataset: openai/gsm8k\ndataset_config: main\n",
        }
        for stage, yaml in recipes.items():
            Path(f"{stage}.yaml").write_text(yaml)
            recipe = load_recipe(stage, ["--config", f"{stage}.yaml", "--run_dir", "runs/a"])
            runs.claim(recipe)
            runs.finish(recipe, FIGURES, lambda folder: (folder / "config.json").write_text("{}"))
            decided = "cc-by-nc-4.0" if "-nc-" in licences["sft"] else None
            if decided:
                with pytest.raises(PushError, match=r"is cc-by-nc-4\.0 \(non-commercial\): its card on the Hub"):
                    push_stage("runs/a", stage, f"tester/lic-{stage}")
            push_stage("runs/a", stage, f"tester/lic-{stage}", licence=decided)
        for stage in recipes:
            expected = licences["sft" if stage in ("sft", "grpo") else "pretrain"]
            assert HfApi().model_info(f"tester/lic-{stage}").card_data.license == expected, stage
        (parent,) = (one for one in runs.done("runs/a", "grpo").data if one["place"] == "model")
        assert (parent["dataset"], parent["licence"]) == ("tester/lic-sft", licences["sft"])

    def test_what_could_not_be_asked_at_the_start_is_asked_when_it_is_pushed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("runs/a/pretrain").mkdir(parents=True)
        origin = "its card is not in the cache, and the Hub does not answer"
        data = used("openai/gsm8k", "unknown") | {"origin": origin}
        a_record("pretrain", data=[data]).write(Path("runs/a/pretrain/stage.json"))
        push_stage("runs/a", "pretrain", "tester/late-pretrain")
        assert HfApi().model_info("tester/late-pretrain").card_data.license == "mit"
        assert runs.done("runs/a", "pretrain").data[0]["licence"] == "mit"

    def test_a_run_with_a_push(self, tmp_path):
        """nanohf run itself, a tokenizer only: refused, then with a decision made, pushed, and again nothing to do."""
        (tmp_path / "recipe").mkdir()
        path = tmp_path / "recipe/tokenizer.yaml"
        path.write_text(TOKENIZER.format(dataset="karpathy/climbmix-400b-shuffle"))
        command = [sys.executable, "-m", "nanohf.cli", "run", "recipe", "--until", "tokenizer", "--push", "tester/run"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert "karpathy/climbmix-400b-shuffle is cc-by-nc-4.0 (non-commercial)" in done.stderr
        assert not (tmp_path / "runs/recipe/tokenizer").exists()
        for _ in range(2):
            done = subprocess.run([*command, "--license", "cc-by-nc-4.0"], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
        assert HfApi().model_info("tester/run-tokenizer").card_data.license == "cc-by-nc-4.0"
        assert runs.done(tmp_path / "runs/recipe", "tokenizer").hub_license == "cc-by-nc-4.0"


def test_what_a_model_brings_along_is_not_cured_by_a_key_of_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mymodel").mkdir()
    argv = ["--config", f"{ROOT}/recipes/demo/grpo.yaml", "--run_dir", "r", "--model_name_or_path", "./mymodel"]
    check_run({"grpo": load_recipe("grpo", argv)}, ["grpo"], [])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "unknown licence" in line]
    assert "decide with --license, or with hub_license: in the recipe" in line
