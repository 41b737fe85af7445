"""Small models for the tests of this folder."""

import math

import pytest
import torch

from nanohf.model import NanoHFConfig, NanoHFForCausalLM


@pytest.fixture
def small_model():
    """small_model(depth, vocab_size, **fields): evaluation mode, and no weight zero so that every path counts."""

    def make(depth: int = 2, vocab_size: int = 128, **fields) -> NanoHFForCausalLM:
        torch.manual_seed(1)
        attention = fields.pop("attn_implementation", "sdpa")
        config = NanoHFConfig.from_depth(depth, vocab_size=vocab_size, **fields)
        model = NanoHFForCausalLM._from_config(config, attn_implementation=attention)
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim == 2:
                    p.normal_(0, 1 / math.sqrt(p.shape[1]))
        return model.eval()

    return make


@pytest.fixture(params=["classic", "everything"])
def either_model(request, small_model):
    """small_model for the classic preset and for all that a config can add; the window is short enough to be felt."""
    if request.param == "classic":
        return small_model

    def make(depth: int = 2, **fields):
        types = ["sliding_attention"] * (depth - 1) + ["full_attention"]
        added = {"preset": "modern", "backout": True, "query_key_scale": 1.2, "layer_types": types, "sliding_window": 8}
        return small_model(depth, **(added | fields))

    return make
