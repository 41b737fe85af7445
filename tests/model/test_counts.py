"""Shapes and parameter counts: the config, the allocated model, the plan's arithmetic and the closed formula agree."""

import pytest
import torch

from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.scaling import parameters as counts


@pytest.mark.parametrize("vocab_size", [265, 4096, 32768, 65536])
@pytest.mark.parametrize("depth", range(1, 27))
def test_plan_config_and_model_agree(depth, vocab_size):
    config = NanoHFConfig.from_depth(depth, vocab_size=vocab_size)
    assert config.hidden_size == counts.hidden_size(depth)
    assert config.num_attention_heads == config.num_key_value_heads == counts.num_attention_heads(depth)
    assert config.num_hidden_layers == depth

    with torch.device("meta"):
        model = NanoHFForCausalLM(config)
    planned = counts.parameters(depth, vocab_size)
    assert sum(p.numel() for p in model.parameters()) == planned.total == counts.closed_formula(depth, vocab_size)
    blocks = sum(p.numel() for p in model.model.layers.parameters())
    assert blocks == planned.attention + planned.mlp
    assert blocks + model.lm_head.weight.numel() == planned.scaling


@pytest.mark.parametrize("vocab_size", [265, 32768])
@pytest.mark.parametrize("depth", range(1, 27))
def test_plan_and_modern_model_agree(depth, vocab_size):
    config = NanoHFConfig.from_depth(depth, vocab_size, preset="modern")
    with torch.device("meta"):
        model = NanoHFForCausalLM(config)
    planned = counts.parameters(depth, vocab_size, "modern")
    assert sum(p.numel() for p in model.parameters()) == planned.total
    tables = [p for name, p in model.named_parameters() if "value_embedding" in name]
    assert sum(p.numel() for p in tables) == planned.value_embeddings
    assert model.model.layers[-1].self_attn.value_embedding is not None


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="preset='newest'"):
        NanoHFConfig.from_depth(2, preset="newest")
    with pytest.raises(ValueError, match="preset='newest'"):
        counts.parameters(2, 100, "newest")


def test_d20_is_the_source_documents_561m():
    with torch.device("meta"):
        assert NanoHFForCausalLM(NanoHFConfig.from_depth(20)).num_parameters() == 560_988_160
        assert NanoHFForCausalLM(NanoHFConfig()).num_parameters() == 560_988_160


def test_fields_win_over_derived_values():
    config = NanoHFConfig.from_depth(4, vocab_size=512, num_key_value_heads=1, max_position_embeddings=128)
    assert (config.num_attention_heads, config.num_key_value_heads, config.max_position_embeddings) == (2, 1, 128)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"hidden_size": 64, "num_attention_heads": 3}, "num_attention_heads=3 must divide hidden_size=64"),
        ({"hidden_size": 6, "num_attention_heads": 2}, "even head size"),
        ({"num_attention_heads": 10, "num_key_value_heads": 4}, "num_key_value_heads=4 must divide"),
        ({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}, "set sliding_window"),
    ],
)
def test_impossible_shapes_are_refused(fields, reason):
    with pytest.raises(ValueError, match=reason):
        NanoHFConfig(**fields)


def test_depth_zero_is_refused():
    with pytest.raises(ValueError, match="depth=0 must be at least 1"):
        NanoHFConfig.from_depth(0)
