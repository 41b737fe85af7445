"""LoRA: only the adapters learn, and what is left behind is a plain model that says the same."""

import copy
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model_state_dict

from nanohf.optim.groups import build_optimizer
from nanohf.train.lora import merged, with_lora

STAGE = SimpleNamespace(use_peft=True, lora_r=4, lora_alpha=8, lora_dropout=0.0, lora_target_modules=["all-linear"])


@pytest.fixture
def trained(model):
    """Three steps of our optimizer on the adapters of the model, whose first layer's projections were zero."""
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
    adapted = with_lora(STAGE, model)
    frozen = {name: p.clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    optimizer = build_optimizer(adapted)
    ids = torch.randint(20, 500, (4, 32), generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        adapted(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapted, frozen, ids


def test_only_the_adapters_of_the_blocks_learn(trained):
    adapted, frozen, _ = trained
    now = dict(adapted.named_parameters())
    assert all(torch.equal(now[name], p) for name, p in frozen.items())
    adapters = get_peft_model_state_dict(adapted)
    assert len(adapters) == 2 * 2 * 6  # two matrices for each of six in two layers
    assert all(p.any() for p in adapters.values())
    assert not any("embed_tokens" in name or "lm_head" in name for name in adapters)


@pytest.mark.slow
def test_merged_it_says_what_the_adapters_said_and_loads_without_peft(trained, tokenizer, tmp_path):
    adapted, _, ids = trained
    with torch.no_grad():
        said = adapted.eval()(input_ids=ids).logits
    plain = merged(copy.deepcopy(adapted))
    plain.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("adapter*"))
    torch.save((ids, said), tmp_path / "said.pt")
    code = """
import sys, torch
sys.modules["peft"] = sys.modules["nanohf"] = None
from transformers import AutoModelForCausalLM
ids, said = torch.load(sys.argv[1] + "/said.pt")
with torch.no_grad():
    logits = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)(input_ids=ids).logits
print((logits - said).abs().max().item() / said.abs().max().item())
"""
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1e-4


def test_without_use_peft_the_model_is_left_alone(model):
    stage = SimpleNamespace(use_peft=False)
    assert merged(with_lora(stage, model)) is model
