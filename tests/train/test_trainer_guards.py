"""midtrain, sft and grpo: broken steps are left out, broken weights are never written, checkpoints are whole."""

import copy
import json
import math
import shutil
from itertools import pairwise

import pytest
import torch
from test_sft import RECIPE, SOURCES
from transformers import TrainerCallback

from nanohf.data.mixture import mixture
from nanohf.errors import RecipeError
from nanohf.recipe.loading import load_recipe
from nanohf.runs.checkpoint_files import fault, newest_whole, numbered
from nanohf.stages.sft import ChatTrainer
from nanohf.train.post_training import Progress, make_optimizer, resumed, save, train
from nanohf.train.trl_arguments import training_arguments

SETTINGS = ["--batch_tokens", "2048", "--save_steps", "2", "--logging_steps", "1", "--bf16", "false"]
MICRO_BATCHES = 2


def trainer_of(model, tokenizer, folder, *overrides):
    """The sft stage's trainer over a copy of the model, as the stage makes it, and its newest checkpoint."""
    recipe = load_recipe("sft", ["--config", str(RECIPE), *SETTINGS, *overrides])
    stage, args = recipe.settings, training_arguments(recipe, str(folder))
    newest, state = resumed(stage, args, [])
    model = copy.deepcopy(model)
    rows, _ = mixture(tokenizer, SOURCES, args)
    args.assistant_only_loss = False
    trainer = ChatTrainer(
        model=model, args=args, train_dataset=rows, processing_class=tokenizer,
        optimizers=make_optimizer(stage, model, stage.lr_scale), stage_state=state,
    )  # fmt: skip
    Progress.attach(trainer)
    return trainer, newest


def break_losses(trainer, micro_batches: set[int], value: float = math.nan) -> None:
    """Of these micro-batches, counted from 1."""
    compute, count = trainer.compute_loss, 0

    def broken(*args, **kwargs):
        nonlocal count
        count += 1
        return compute(*args, **kwargs) * (value if count in micro_batches else 1)

    trainer.compute_loss = broken


def weights(model) -> dict:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


class AfterEachStep(TrainerCallback):
    def __init__(self, look):
        self.look = look

    def on_step_end(self, args, state, control, **kwargs):
        self.look(state.global_step)


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_micro_batch_leaves_out_its_step_and_nothing_else(model, tokenizer, tmp_path, capsys, value):
    """Of four steps the third is broken in its first micro-batch. Weights stay, schedule and data move on."""
    trainer, _ = trainer_of(model, tokenizer, tmp_path, "--max_steps", "4")
    break_losses(trainer, {2 * MICRO_BATCHES + 1}, value)
    seen, rates = [], []
    trainer.optimizer.register_step_pre_hook(lambda its, *_: rates.append(its.param_groups[0]["lr"]))
    trainer.add_callback(AfterEachStep(lambda step: seen.append(weights(trainer.model))))
    result = train(trainer, None)
    assert result["nonfinite_steps"] == 1
    assert "step 3: loss " in (said := capsys.readouterr().err)
    assert "not applied (1 in a row)" in said
    assert [same(a, b) for a, b in pairwise(seen)] == [False, True, False]
    assert len(rates) == 3
    assert [r / rates[0] for r in rates] == pytest.approx([1, 3 / 4, 1 / 4])
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))
    whole, _ = trainer_of(model, tokenizer, tmp_path / "whole", "--max_steps", "4")
    train(whole, None)
    expected = [log["loss"] for log in whole.state.log_history if "loss" in log]
    assert losses[:2] == expected[:2], "what came before is untouched"
    assert losses[2] == pytest.approx(expected[3], abs=0.3)


@pytest.mark.slow
def test_many_in_a_row_end_it_with_the_last_good_checkpoint(model, tokenizer, tmp_path):
    trainer, _ = trainer_of(model, tokenizer, tmp_path, "--max_steps", "9", "--max_nonfinite_steps", "3")
    break_losses(trainer, {2, *range(7, 13)})  # step 1, then 4 to 6
    with pytest.raises(RecipeError, match=r"max_nonfinite_steps=3 .* at step 6 .* checkpoint is .*checkpoint-2;"):
        train(trainer, None)
    assert [p.name for p in numbered(tmp_path)] == ["checkpoint-2"], "none while steps fail"
    assert json.loads((tmp_path / "checkpoint-2/stage_state.json").read_text())["nonfinite_steps"] == 1


def test_weights_that_are_not_finite_are_written_nowhere(model, tokenizer, tmp_path):
    trainer, _ = trainer_of(model, tokenizer, tmp_path, "--max_steps", "3", "--save_steps", "1")

    def break_a_weight(step: int) -> None:
        """Where no guard of losses sees it."""
        if step == 2:
            trainer.model.lm_head.weight.data[3, 3] = math.inf

    trainer.add_callback(AfterEachStep(break_a_weight))
    with pytest.raises(RecipeError, match=r"checkpoint-2 is not written: 1 of its weights .* is .*checkpoint-1;"):
        train(trainer, None)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["checkpoint-1"]
    with pytest.raises(RecipeError, match="sft is not written: 1 of its weights"):
        save(trainer, tmp_path / "sft")
    assert not (tmp_path / "sft").exists()


@pytest.mark.slow
def test_damaged_it_resumes_from_the_older_one_and_ends_the_same(model, tokenizer, tmp_path, capsys):
    """With a broken step before the checkpoint that is resumed from."""
    whole, _ = trainer_of(model, tokenizer, tmp_path, "--max_steps", "6", "--save_total_limit", "3")
    break_losses(whole, {2})
    train(whole, None)
    assert [p.name for p in numbered(tmp_path)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert not any(map(fault, numbered(tmp_path)))
    shutil.rmtree(tmp_path / "checkpoint-6")
    with (tmp_path / "checkpoint-4/optimizer.pt").open("r+b") as file:
        file.truncate(1000)
    (tmp_path / ".partial/checkpoint-6").mkdir(parents=True)
    shutil.copy(tmp_path / "checkpoint-4/trainer_state.json", tmp_path / ".partial/checkpoint-6")

    again, newest = trainer_of(model, tokenizer, tmp_path, "--max_steps", "6", "--save_total_limit", "3")
    assert newest.name == "checkpoint-2"
    assert "optimizer.pt has 1,000 bytes of" in capsys.readouterr().err
    result = train(again, newest)
    assert result["nonfinite_steps"] == 1
    assert same(weights(whole.model), weights(again.model))
    assert newest_whole(tmp_path).name == "checkpoint-6"


@pytest.mark.slow
@pytest.mark.parametrize("to", [1, 2])
def test_with_other_processes_batch_and_steps_are_the_checkpoints(model, tokenizer, tmp_path, to, monkeypatch):
    """What two processes wrote, by its note: one now does twice the micro-batches, and stops where they would."""
    trainer, _ = trainer_of(model, tokenizer, tmp_path, "--max_steps", "2")
    train(trainer, None)
    note = tmp_path / "checkpoint-2/stage_state.json"
    state = json.loads(note.read_text())
    assert state["batch"] == {"processes": 1, "rows": 1, "accumulation": 2}
    assert state["max_steps"] == 2
    state |= {"batch": {"processes": 2, "rows": 1, "accumulation": 2}, "max_steps": 7}
    note.write_text(json.dumps(state))
    monkeypatch.setattr("nanohf.runs.checkpoint_files.fault", lambda folder: None)
    recipe = load_recipe("sft", ["--config", str(RECIPE), *SETTINGS])
    stage, args = recipe.settings, training_arguments(recipe, str(tmp_path))
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (1, 4)  # the recipe says 2 rows
    monkeypatch.setattr(type(args), "world_size", to)
    resumed(stage, args, [])
    assert args.max_steps == 7
    assert args.gradient_accumulation_steps * args.per_device_train_batch_size * to == 4
    monkeypatch.setattr(type(args), "world_size", 3)
    with pytest.raises(RecipeError, match=r"written by 2 process\(es\), and 3 cannot share its 4 rows"):
        resumed(stage, args, [])
    monkeypatch.setattr("nanohf.train.trl_arguments.launched_processes", lambda: 3)
    with pytest.raises(RecipeError, match=r"written by 2 process\(es\), and 3 cannot share its 4 rows"):
        training_arguments(recipe, str(tmp_path))
