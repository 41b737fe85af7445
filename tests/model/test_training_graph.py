"""What a compiler sees of a training step: attention causal by name, without a mask, as FlashAttention needs it."""

import pytest
import torch
import torch.nn.functional as F


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


@pytest.mark.parametrize("preset", ["classic", "modern"])
def test_attention_is_causal_without_a_mask(small_model, preset):
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
