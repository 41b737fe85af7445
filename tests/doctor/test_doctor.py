"""Each fault, planted in a copy of the demo recipe, is caught with a message of its own; the sound recipe passes."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import datasets
import pytest
import torch
from datasets.exceptions import DatasetNotFoundError
from records import a_record
from small_run import ROOT, SMALL

from nanohf.cli import main
from nanohf.data import hub_errors, tables
from nanohf.data import toy_world as world
from nanohf.doctor import examine
from nanohf.doctor import resource_checks as resources
from nanohf.doctor import word_problem_checks as problems
from nanohf.doctor.resource_checks import quick
from nanohf.model import NanoHFForCausalLM
from nanohf.pipeline import check_resources
from nanohf.recipe.loading import Recipe
from nanohf.recipe.recipe_folder import find_recipe_folder, load_all, stage_arguments
from nanohf.recipe.stage_names import STAGES
from nanohf.tokenizer.train_bpe import train_tokenizer

RUN = Path("runs/recipe")
USAGE = namedtuple("usage", "total used free")


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    """In an empty directory with a copy of the demo recipe: doctor(*options) -> (exit status, lines not ok)."""
    shutil.copytree(ROOT / "recipes/demo", tmp_path / "recipe")
    monkeypatch.chdir(tmp_path)
    options = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]

    def examined(*more: str) -> tuple[int, list[str]]:
        status = main(["doctor", "recipe", *options, *more])
        lines = capsys.readouterr().out.splitlines()
        return status, [line for line in lines if line.startswith(("warn ", "fail "))]

    return examined


def plant(stage: str, *parts) -> Path:
    """What is saved of the parts is a finished stage of the run."""
    folder = RUN / stage
    for part in parts:
        part.save_pretrained(folder)
    a_record(stage).write(folder / "stage.json")
    return folder


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def fails(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("fail ")]


def only(lines: list[str], *words: str) -> None:
    """All failures are about this fault and say so."""
    assert fails(lines)
    for line in fails(lines):
        assert all(word in line for word in words), line


@pytest.mark.slow
def test_the_sound_recipe_passes_and_shows_what_is_trained(doctor, capsys):
    status, lines = doctor()
    assert status == 0
    assert not fails(lines)
    main(["doctor", "recipe", *[p for k, v in SMALL.items() for p in ("--set", f"{k}={v}")]])
    output = capsys.readouterr().out
    assert "<|assistant_start|>[[" in output
    assert "<|assistant_end|>]]" in output
    assert output.count("the first conversation") == 1


@pytest.mark.slow
def test_a_finished_run_is_checked_with_its_own_models(doctor, tokenizer, model):
    for stage in ("tokenizer", "pretrain", "midtrain", "sft"):
        plant(stage, tokenizer, *([model] if stage != "tokenizer" else []))
    status, lines = doctor()
    assert status == 0
    assert any("groups with spread" in line and "0 of 4 groups of 16" in line for line in lines)  # random weights


def test_a_template_without_generation_marks(doctor, tokenizer):
    template = plant("tokenizer", tokenizer) / "chat_template.jinja"
    edit(template, "{%- generation -%}", "")
    edit(template, "{%- endgeneration -%}", "")
    status, lines = doctor()
    assert status == 1
    only(lines, "template marks (0% of", "{% generation %}")


@pytest.mark.slow
def test_an_end_of_turn_outside_the_mask(doctor, tokenizer):
    template = plant("tokenizer", tokenizer) / "chat_template.jinja"
    end = "'<|assistant_end|>'"
    edit(template, f"{{{{- ns.own ~ {end} -}}}}{{%- endgeneration -%}}", f"{{{{- ns.own -}}}}{{%- endgeneration -%}}{{{{- {end} -}}}}")  # fmt: skip # noqa: E501
    status, lines = doctor()
    assert status == 1
    only(lines, "end of turn <|assistant_end|> (trained in 0 of", "would never stop")


@pytest.mark.slow
def test_two_bos(doctor, tokenizer):
    template = plant("tokenizer", tokenizer) / "chat_template.jinja"
    edit(template, "{{- bos_token -}}", "{{- bos_token ~ bos_token -}}")
    status, lines = doctor()
    assert status == 1
    only(lines, "one BOS", "must not add another")


@pytest.mark.slow
def test_packing_with_leak(doctor):
    status, lines = doctor("--set", "sft.packing_strategy=wrapped")
    assert status == 1
    only(lines, "sft: no leak between packed documents", "set packing_strategy: bfd")


@pytest.mark.slow
def test_a_model_that_ignores_position_ids_leaks(doctor, monkeypatch):
    forward = NanoHFForCausalLM.forward

    def ignorant(self, input_ids=None, position_ids=None, **kwargs):
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(NanoHFForCausalLM, "forward", ignorant)
    status, lines = doctor()
    assert status == 1
    only([line for line in lines if "no leak" in line], "ignores position_ids")


@pytest.mark.slow
def test_a_softcap_misnamed_in_the_input_model(doctor, tokenizer, model):
    plant("tokenizer", tokenizer)
    folder = plant("pretrain", tokenizer, model)
    edit(folder / "config.json", "final_logit_softcapping", "logit_softcapping")
    status, lines = doctor()
    assert status == 1
    only(lines, "midtrain: config fields", "logit_softcapping", "no final_logit_softcapping")


@pytest.mark.slow
def test_a_softcap_misnamed_in_the_models_code(doctor, monkeypatch):
    """The model caps by a field that TRL does not know, as in an edited copy of modeling_nanohf.py."""
    init = NanoHFForCausalLM.__init__
    forward = NanoHFForCausalLM.forward

    def misnamed(self, config):
        init(self, config)
        self.cap, config.final_logit_softcapping = config.final_logit_softcapping, None

    def capped(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        output.logits = self.cap * torch.tanh(output.logits / self.cap)
        return output

    monkeypatch.setattr(NanoHFForCausalLM, "__init__", misnamed)
    monkeypatch.setattr(NanoHFForCausalLM, "forward", capped)
    status, lines = doctor()
    assert status == 1
    only(lines, "trainer loss = model loss", "final_logit_softcapping")


@pytest.mark.slow
def test_rows_all_longer_than_max_length(doctor):
    status, lines = doctor("--set", "midtrain.max_length=12", "--set", "midtrain.batch_tokens=768")
    assert status == 1
    only(lines, "midtrain: rows longer than max_length (100%; max_length=12", "every row is cut")


@pytest.mark.slow
def test_some_rows_longer_than_max_length(doctor):
    status, lines = doctor("--set", "midtrain.max_length=48", "--set", "midtrain.batch_tokens=3072")
    assert status == 0
    assert any("midtrain: rows longer than max_length" in line and "cut off" in line for line in lines)


@pytest.mark.slow
def test_a_constant_reward(doctor, monkeypatch):
    monkeypatch.setattr(problems, "reward_func", lambda tokenizer: lambda answer, **_: [1.0] * len(answer))
    status, lines = doctor()
    assert status == 1
    only(lines, "grpo: reward (right answers 1.00, wrong ones 1.00", "constant")


@pytest.mark.slow
def test_a_tokenizer_from_another_run(doctor, tokenizer, model):
    other = train_tokenizer([row["text"] for row in world.rows("documents", "train", 300, seed=5)], 448)
    plant("tokenizer", other)
    plant("pretrain", tokenizer, model)
    status, lines = doctor()
    assert status == 1
    only(lines, "midtrain: tokenizer", "the model's has 512 tokens", "the run's 448", "another run")


@pytest.mark.slow
def test_a_tokenizer_larger_than_the_model(doctor, tokenizer, model):
    plant("tokenizer", tokenizer)
    folder = plant("pretrain", tokenizer, model)
    edit(folder / "config.json", '"vocab_size": 512', '"vocab_size": 448')
    status, lines = doctor()
    assert status == 1
    only(lines, "midtrain: ids fit the model (largest id 511, vocab_size=448)")


MISSING = ["--set", "grpo.dataset=nobody/not-there"]


@pytest.mark.slow
def test_a_hub_id_that_does_not_exist(doctor, monkeypatch):
    def absent(dataset, config):
        raise DatasetNotFoundError(f"Dataset '{dataset}' doesn't exist on the Hub or cannot be accessed.")

    monkeypatch.setattr(hub_errors, "hub_answers", lambda: True)
    monkeypatch.setattr(tables, "load_dataset_builder", absent)
    status, lines = doctor(*MISSING)
    assert status == 1
    only(lines, "grpo: source word problems nobody/not-there", "Check the spelling")


@pytest.mark.slow
def test_offline_a_hub_id_cannot_be_checked(doctor, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    status, lines = doctor(*MISSING)
    assert status == 0
    assert any("grpo: source word problems nobody/not-there train (not checked)" in line for line in lines)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_errors, "ENDPOINT", "http://127.0.0.1:9")  # the port that discards
    hub_errors.hub_answers.cache_clear()
    status, lines = doctor(*MISSING)
    hub_errors.hub_answers.cache_clear()
    assert status == 1
    only(lines, "grpo: source word problems nobody/not-there", "http://127.0.0.1:9 does not answer")


@pytest.mark.hub
@pytest.mark.skipif("127.0.0.1" not in os.environ.get("HF_ENDPOINT", ""), reason="needs a loopback Hub")
def test_hub_ids_on_a_hub(tmp_path):
    code = (
        "from nanohf.data.tables import open_head\n"
        "for what in (('nobody/not-there', 'train', None), ('openai/gsm8k', 'test[:50%]', 'main'), "
        "('openai/gsm8k', 'test', 'mian'), ('openai/gsm8k', 'tset', 'main')):\n"
        "    try:\n        print(len(open_head(*what)))\n"
        "    except ValueError as error:\n        print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    missing, rows, config, split = result.stdout.splitlines()
    assert "neither here nor on the Hub" in missing
    assert rows == "20"
    assert "mian" in config
    assert "has no split 'tset' but train, test" in split


@pytest.mark.slow
@pytest.mark.parametrize("name", ["midtrian", "./nowhere/model"])
def test_an_input_model_that_is_not_there(doctor, name, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    status, lines = doctor("--set", f"sft.model_name_or_path={name}")
    assert status == 1
    only(lines, f"sft: source {name} (missing)", f"model_name_or_path='{name}'")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["assistant_only_loss=false"],
        ["packing=false", "batch_tokens=null", "conversations_per_step=8"],
        ["per_device_train_batch_size=4"],
    ],
    ids=" ".join,
)
def test_other_sound_settings_pass(doctor, settings):
    status, lines = doctor(*(part for setting in settings for part in ("--set", f"sft.{setting}")))
    assert status == 0
    warned = any(line.startswith("warn  sft: tokens in the loss (100%") for line in lines)
    assert warned == ("assistant_only_loss=false" in settings)


@pytest.mark.slow
def test_too_little_disk(doctor, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: USAGE(10**9, 10**9 - 10**6, 10**6))
    status, lines = doctor()
    assert status == 1
    only(lines, "run: disk (", "of 1 MB free", "too little disk")


@pytest.mark.slow
def test_too_little_memory(doctor, monkeypatch):
    monkeypatch.setattr(resources, "available_memory", lambda cuda: 10**6)
    status, lines = doctor()
    assert status == 1
    only(lines, "memory (about", "of 1 MB free", "per_device_train_batch_size")


@pytest.mark.slow
def test_weights_that_are_broken(doctor, tokenizer, model):
    plant("tokenizer", tokenizer)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.eos_token_id] = float("nan")
    plant("pretrain", tokenizer, model)
    status, lines = doctor()
    assert status == 1
    assert any("finite loss of the longest row" in line and "nan" in line for line in fails(lines))


@pytest.mark.slow
def test_a_check_that_crashes_is_a_failure_and_the_others_go_on(doctor, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("division by zero\nand more")

    monkeypatch.setattr(examine.chat, "one_bos", broken)
    status, lines = doctor()
    assert status == 1
    assert fails(lines) == [
        f"fail  {stage}: one BOS — the check ended in ZeroDivisionError: division by zero"
        for stage in ("midtrain", "sft")
    ]


def run_recipes(*overrides: str) -> dict[str, Recipe]:
    folder = find_recipe_folder("recipe")
    return load_all({stage: stage_arguments(folder, RUN, stage, list(overrides), None) for stage in STAGES})


def test_quick_knows_memory_and_disk_of_the_stages_to_do(doctor):
    results = quick(run_recipes(), ["midtrain", "sft", "evaluate"])
    assert [(r.stage, r.what) for r in results] == [("midtrain", "memory"), ("sft", "memory"), ("run", "disk")]
    assert {r.status for r in results} == {"ok"}


def test_memory_counts_what_the_preset_adds(doctor):
    sizes = [resources.model_size(run_recipes(f"pretrain.preset={preset}")) for preset in ("classic", "modern")]
    classic, modern = (size.bytes.weights // 4 for size in sizes)
    assert modern == classic + 1024 * 128 + 12 * 4 + 4  # values of every token, one head's gate, scalars


def test_a_run_is_refused_only_for_want_of_several_times_the_memory(doctor, monkeypatch, capsys):
    """The demo's pretraining needs some 90 MB by the doctor's estimate."""
    monkeypatch.setattr(resources, "available_memory", lambda cuda: 4 * 10**6)
    assert main(["run", "recipe"]) == 2
    assert "pretrain: memory: about" in capsys.readouterr().err
    assert not RUN.exists()
    recipes = run_recipes()
    (result,) = [r for r in quick(recipes, ["pretrain"]) if r.what == "memory"]
    need = float(result.figure.split()[1]) * 10**6
    for free, status in ((need / 3.5, "fail"), (need / 2, "warn"), (need * 2, "ok")):
        monkeypatch.setattr(resources, "available_memory", lambda cuda, free=free: free)
        assert quick(recipes, ["pretrain"])[0].status == status
    monkeypatch.setattr(resources, "available_memory", lambda cuda: need / 2)
    check_resources(recipes, ["pretrain"])
    assert capsys.readouterr().err.startswith("warning: pretrain: memory: about")


def test_a_run_without_room_for_its_checkpoints_is_refused(doctor, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: USAGE(10**9, 10**9 - 10**6, 10**6))
    assert main(["run", "recipe"]) == 2
    assert "run: disk: " in capsys.readouterr().err
    assert not RUN.exists()


def test_a_run_that_goes_on_has_the_room_its_checkpoints_already_take(doctor, monkeypatch):
    recipes = run_recipes()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: USAGE(10**9, 10**9 - 10**6, 10**6))
    assert quick(recipes, ["sft"])[-1].status == "fail"
    old = RUN / "checkpoints/sft/checkpoint-40"
    old.mkdir(parents=True)
    (old / "model.safetensors").write_bytes(bytes(50 * 10**6))
    assert quick(recipes, ["sft"])[-1].status == "ok"


def test_recipes_that_cannot_be_read_end_in_status_2(doctor):
    assert doctor("--set", "sft.packign=true")[0] == 2
