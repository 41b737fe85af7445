"""What a compiler sees of a training step: attention causal by name, without a mask, as FlashAttention needs it."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.recipe.loading import load_recipe


def attention_calls(model, ids: torch.Tensor) -> list[tuple[object, object]]:
    """(mask, is_causal) of every attention in the compiled graph of a forward pass with labels."""
    found = []

    def backend(graph, inputs):
        for node in graph.graph.nodes:
            if node.target is F.scaled_dot_product_attention:
                found.append((node.kwargs.get("attn_mask"), node.kwargs.get("is_causal")))
        return graph.forward

    torch._dynamo.reset()
    torch.compile(model, backend=backend, fullgraph=True)(input_ids=ids, labels=ids, use_cache=False)
    return found


RECIPES = sorted(path.parent.name for path in Path("recipes").glob("*/pretrain.yaml") if path.parent.name != "base")


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.slow
def test_attention_of_every_recipe_is_causal_without_a_mask(name):
    """At its full size, on torch's meta device, where tensors have shapes and no numbers."""
    config = load_recipe("pretrain", ["--config", f"recipes/{name}/pretrain.yaml"]).settings
    vocab_size = load_recipe("tokenizer", ["--config", f"recipes/{name}/tokenizer.yaml"]).settings.vocab_size
    heads = {"num_attention_heads": config.num_attention_heads} if config.num_attention_heads else {}
    with torch.device("meta"):
        shape = NanoHFConfig.from_depth(config.depth, vocab_size=vocab_size, preset=config.preset, **heads)
        model = NanoHFForCausalLM(shape).train()
        rows = torch.zeros(config.per_device_train_batch_size, config.max_length, dtype=torch.long)
    calls = attention_calls(model, rows)
    assert calls == [(None, True)] * config.depth


@pytest.mark.parametrize("preset", ["classic", "modern"])
def test_attention_is_causal_without_a_mask_on_a_cpu(small_model, preset):
    model = small_model(preset=preset).train()
    rows = torch.randint(128, (2, 1536))  # longer than what a CPU takes its own way
    calls = attention_calls(model, rows)
    assert calls == [(None, True)] * model.config.num_hidden_layers


def test_packed_rows_have_a_mask(small_model):
    """The counter-test: where position ids say that rows are packed, causal alone would be wrong."""
    model = small_model().train()
    rows = torch.randint(128, (1, 1536))
    positions = torch.arange(1536)[None] % 512
    found = []

    def backend(graph, inputs):
        found.extend(n for n in graph.graph.nodes if n.target is F.scaled_dot_product_attention)
        return graph.forward

    torch._dynamo.reset()
    torch.compile(model, backend=backend)(input_ids=rows, position_ids=positions, labels=rows, use_cache=False)
    assert found
    assert all(node.kwargs.get("attn_mask") is not None for node in found)
