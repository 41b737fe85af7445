"""Initialisation by its statistics, for every way a model comes into being."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from nanohf.model import NanoHFConfig, NanoHFForCausalLM

CONFIG = {"depth": 2, "vocab_size": 512}


def direct(tmp_path):
    return NanoHFForCausalLM(NanoHFConfig.from_depth(**CONFIG))


def from_config(tmp_path):
    return AutoModelForCausalLM.from_config(NanoHFConfig.from_depth(**CONFIG))


def meta_device(tmp_path):
    with torch.device("meta"):
        model = NanoHFForCausalLM(NanoHFConfig.from_depth(**CONFIG))
    assert all(p.is_meta for p in model.parameters())
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(torch.nan)
    model.init_weights()
    return model


def from_nothing(tmp_path):
    """from_pretrained of a folder whose weight file holds none of the model's weights."""
    NanoHFConfig.from_depth(**CONFIG).save_pretrained(tmp_path)
    save_file({"unused": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("make", [direct, from_config, meta_device, from_nothing])
def test_initialisation(make, tmp_path):
    torch.manual_seed(0)
    model = make(tmp_path)
    seen = set()
    for name, p in model.named_parameters():
        rows, cols = p.shape
        if name.endswith(("o_proj.weight", "fc2.weight", "lm_head.weight")):
            assert not p.any(), name
        else:
            std = 1.0 if "embed_tokens" in name else min(1.0, math.sqrt(rows / cols)) / math.sqrt(cols)
            assert abs(p.mean().item()) < 4 * std / math.sqrt(p.numel()), name
            assert p.std().item() == pytest.approx(std, rel=0.05), name
        seen.add(name.rsplit(".", 2)[-2])
    assert seen == {"embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "lm_head"}
    head_dim = model.config.head_dim
    expected = torch.tensor([10_000.0 ** (-2 * i / head_dim) for i in range(head_dim // 2)])
    for buffer in (model.model.rotary_emb.inv_freq, model.model.rotary_emb.original_inv_freq):
        torch.testing.assert_close(buffer, expected)


def test_the_narrow_matrix_rule():
    """std = min(1, √(rows/cols)) / √cols: grouped-query k and v have fewer rows than columns."""
    model = NanoHFForCausalLM(NanoHFConfig.from_depth(4, vocab_size=64, num_key_value_heads=1))
    assert model.model.layers[0].self_attn.k_proj.weight.shape == (128, 256)
    assert model.model.layers[0].self_attn.k_proj.weight.std().item() == pytest.approx(math.sqrt(0.5) / 16, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_missing_head_starts_at_zero_and_the_rest_is_what_was_saved(tmp_path, small_model, dtype):
    model = small_model(**CONFIG)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})

    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert set(info["missing_keys"]) == {"lm_head.weight"}
    assert not loaded.lm_head.weight.any()
    for name, weight in weights.items():
        assert torch.equal(loaded.get_parameter(name), weight.to(dtype)), name
    assert torch.equal(loaded.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def test_positions_stay_exact_in_bf16():
    model = direct(None)
    exact = model.model.rotary_emb.inv_freq.clone()
    for moved in (model.to(torch.bfloat16), model.half(), model.float()):
        assert moved.lm_head.weight.dtype == moved.dtype
        assert torch.equal(moved.model.rotary_emb.inv_freq, exact)


def test_tied_embeddings_keep_the_embeddings_values(tmp_path):
    model = NanoHFForCausalLM(NanoHFConfig.from_depth(**CONFIG, tie_word_embeddings=True))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.std().item() == pytest.approx(1.0, rel=0.05)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_a_copy_saved_after_a_hub_load_does_not_depend_on_that_repository(tmp_path):
    config = NanoHFConfig.from_depth(1, vocab_size=64)
    fields = config.to_dict() | {"auto_map": {"AutoModel": "user/repo--modeling_nanohf.NanoHFModel"}}
    NanoHFConfig.from_dict(fields).save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    assert not any("--" in reference for reference in auto_map.values())


@pytest.mark.parametrize("make", [direct, from_config, meta_device, from_nothing])
def test_initialisation_of_what_modern_and_backout_add(make, tmp_path, monkeypatch):
    monkeypatch.setitem(CONFIG, "preset", "modern")
    monkeypatch.setitem(CONFIG, "backout", True)
    monkeypatch.setitem(CONFIG, "depth", 4)
    torch.manual_seed(0)
    model = make(tmp_path).model
    scales = [(layer.residual_scale.item(), layer.input_scale.item()) for layer in model.layers]
    expected = [(1.15, 0.20), (1.15 - 0.1 / 3, 0.15), (1.15 - 0.2 / 3, 0.10), (1.05, 0.05)]
    assert scales == [pytest.approx(pair) for pair in expected]
    assert model.backout_scale.item() == pytest.approx(0.2)
    attentions = [layer.self_attn for layer in model.layers]
    assert [a.value_embedding is not None for a in attentions] == [False, True, False, True]
    for attention in attentions[1::2]:
        assert attention.value_embedding.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
        gate = attention.value_gate.weight
        assert gate.shape == (2, 12)
        assert 0 <= gate.min() < gate.max() <= 0.02
