"""Optimizer state from one stage to the next: by name, whole, and only where it belongs."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from records import FIGURES, a_recipe
from safetensors.torch import load_file

from nanohf.data.chat_source import ChatSource
from nanohf.errors import RecipeError
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.groups import build_optimizer
from nanohf.optim.named_state import named_state
from nanohf.pipeline import check_carried
from nanohf.recipe.loading import Recipe
from nanohf.recipe.post_training_schemas import ChatConfig
from nanohf.recipe.schemas import PretrainConfig
from nanohf.runs import run_folder as runs
from nanohf.stages import sft
from nanohf.train.optimizer_handover import carry_over, save_moments

STEPS = 3


def steps(model, optimizer, number: int) -> None:
    for step in range(number):
        ids = torch.randint(8, (4, 16), generator=torch.Generator().manual_seed(step)).cumsum(1) % 64
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def tiny(preset: str = "classic", vocab_size: int = 64) -> NanoHFForCausalLM:
    torch.manual_seed(0)
    config = NanoHFConfig.from_depth(3, vocab_size, preset, hidden_size=32, num_attention_heads=2)
    return NanoHFForCausalLM(config)


def left_by_pretraining(folder, model, **settings):
    """The optimizer after its steps; its state lies in the folder."""
    optimizer = build_optimizer(model, **settings)
    steps(model, optimizer, STEPS)
    save_moments(named_state(optimizer, model), folder)
    return optimizer


@pytest.mark.parametrize("preset", ["classic", "modern"])
def test_moments_and_step_counts_come_over_and_nothing_else(tmp_path, preset):
    first, second = tiny(preset), tiny(preset)
    before = left_by_pretraining(tmp_path, first, normuon=0.9)
    after = build_optimizer(second, lr_scale=0.5)
    rates = [group["lr"] for group in after.param_groups]
    carry_over(after, second, tmp_path)
    assert [group["lr"] for group in after.param_groups] == rates
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        kept = {
            kind: t for kind, t in before.state[p].items() if kind != "second_moment"
        }  # plain Muon has no use for it
        assert kept.keys() == after.state[q].keys()
        assert all(torch.equal(after.state[q][kind], t) for kind, t in kept.items())


def test_the_first_step_is_the_one_that_would_have_come(tmp_path):
    going_on = tiny()
    optimizer = left_by_pretraining(tmp_path, going_on)
    carried, cold = tiny(), tiny()
    carried.load_state_dict(going_on.state_dict())
    cold.load_state_dict(going_on.state_dict())
    carry_over(warm := build_optimizer(carried), carried, tmp_path)
    for model, its in ((going_on, optimizer), (carried, warm), (cold, build_optimizer(cold))):
        steps(model, its, 1)
    for p, q, r in zip(*(m.parameters() for m in (going_on, carried, cold)), strict=True):
        assert torch.equal(p, q)
        assert not torch.equal(p, r)


def test_state_that_is_not_there_or_of_another_model(tmp_path):
    model = tiny(vocab_size=128)
    with pytest.raises(RecipeError, match=r"there is no .*keep_optimizer: true"):
        carry_over(build_optimizer(model), model, tmp_path)
    left_by_pretraining(tmp_path, tiny())
    with pytest.raises(RecipeError, match=r"weight.exp_avg is \[64, 32\] and should be \[128, 32\], and 3"):
        carry_over(optimizer := build_optimizer(model), model, tmp_path)
    assert not optimizer.state, "nothing is half loaded"
    model = tiny("modern")
    with pytest.raises(RecipeError, match="is missing and should be"):
        carry_over(build_optimizer(model), model, tmp_path)


@pytest.mark.parametrize("key", ["carry_optimizer", "keep_optimizer"])
@pytest.mark.parametrize("other", [{"use_peft": True}, {"optimizer": "trl"}])
def test_only_our_optimizer_over_the_whole_model(key, other):
    with pytest.raises(RecipeError, match=f"{key} is for our optimizer over the whole model"):
        ChatConfig(**{key: True}, **other)


def test_a_run_that_would_miss_it_is_refused_before_it_starts(tmp_path):
    source = ChatSource("builtin", "gsm8k", "problems", rows=5)
    settings = [PretrainConfig(run_dir=str(tmp_path), keep_optimizer=keep) for keep in (True, False)]
    kept, lost = (Recipe("pretrain", Path("pretrain.yaml"), {}, of) for of in settings)
    chat = ChatConfig(str(tmp_path), carry_optimizer=True, mixture=[source], eval_mixture=[source])
    midtrain = Recipe("midtrain", Path("midtrain.yaml"), {}, chat)
    check_carried({"pretrain": kept, "midtrain": midtrain}, ["pretrain", "midtrain"])
    with pytest.raises(RecipeError, match="keep_optimizer: true in pretrain's recipe"):
        check_carried({"pretrain": lost, "midtrain": midtrain}, ["pretrain", "midtrain"])
    with pytest.raises(RecipeError, match="kept no optimizer state; run it again: --from pretrain"):
        check_carried({"pretrain": kept, "midtrain": midtrain}, ["midtrain"])
    (tmp_path / "pretrain").mkdir()
    left_by_pretraining(tmp_path / "pretrain", tiny())
    check_carried({"pretrain": lost, "midtrain": midtrain}, ["midtrain"])


@pytest.mark.slow
def test_midtraining_goes_on_and_leaves_its_own(tmp_path, model, tokenizer, monkeypatch):
    """Also where it was killed between its last checkpoint and its end."""

    def write(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        left_by_pretraining(folder, model)

    runs.finish(a_recipe(tmp_path, "pretrain"), FIGURES, write)
    row = "{dataset: builtin, config: problems, rows: 20, converter: gsm8k}"
    (tmp_path / "midtrain.yaml").write_text(f"""
stage: midtrain
mixture: [{row}]
eval_mixture: [{row}]
max_length: 256
packing: true
batch_tokens: 256
per_device_train_batch_size: 1
max_steps: 2
save_steps: 1
carry_optimizer: true
keep_optimizer: true
""")
    argv = ["--config", str(tmp_path / "midtrain.yaml"), "--run_dir", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "finish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sft.main(argv)
    sft.main(argv)
    before, after = (load_file(tmp_path / stage / runs.OPTIMIZER) for stage in ("pretrain", "midtrain"))
    assert before.keys() == after.keys()
    assert {t.item() for name, t in after.items() if name.endswith(".step")} == {STEPS + 2}
