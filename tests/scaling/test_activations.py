"""The bytes that autograd saves of the real model, at full size in fake tensors, against the formula."""

import pytest
import torch
from functorch.compile import min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensorMode

from nanohf.model import NanoHFConfig, NanoHFForCausalLM, modeling_nanohf
from nanohf.scaling.activations import MicroBatch, saved_bytes
from nanohf.scaling.parameters import parameters

MODELS = {  # depth, vocabulary, preset, heads
    "d4": (4, 4_096, "modern", 4),
    "d12": (12, 32_768, "classic", 6),
    "d20": (20, 65_536, "classic", 10),
}


@pytest.fixture(autouse=True)
def attention_as_on_a_gpu(monkeypatch):
    """The fused kernel, not the blocks that replace it when a CPU trains short rows."""
    monkeypatch.setattr(modeling_nanohf, "can_be_blocked", lambda *args: False)


def storages(tensors, own=()) -> int:
    """Bytes of the distinct storages of these tensors."""
    distinct = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(size for key, size in distinct.items() if key not in own)


def forward(name: str, batch: MicroBatch, run) -> None:
    """run(model, ids) under fake tensors and the batch's precision."""
    depth, vocab_size, preset, heads = MODELS[name]
    with FakeTensorMode(allow_non_fake_inputs=True):
        config = NanoHFConfig.from_depth(depth, vocab_size=vocab_size, preset=preset, num_attention_heads=heads)
        model = NanoHFForCausalLM(config).train()
        if batch.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        ids = torch.zeros(batch.rows, batch.length, dtype=torch.long)
        with torch.autocast("cpu", torch.bfloat16, enabled=batch.bf16):
            run(model, ids)


def eager_bytes(name: str, batch: MicroBatch) -> int:
    kept: list[torch.Tensor] = []
    own: set[int] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    def run(model, ids):
        own.update(t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers()))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            model(input_ids=ids, labels=ids, use_cache=False)

    forward(name, batch, run)
    return storages(kept, own)


def compiled_bytes(name: str, batch: MicroBatch) -> int:
    """What the compiled forward graph hands to the backward graph, by the partition that torch.compile makes."""
    kept: list[int] = []

    def forward_graph(graph, inputs):
        (outputs,) = next(node for node in graph.graph.nodes if node.op == "output").args
        values = {n.name: n.meta["val"] for n in outputs if isinstance(n, torch.fx.Node) and n.op != "placeholder"}
        kept.append(storages(v for v in values.values() if isinstance(v, torch.Tensor)))
        return graph

    def run(model, ids):
        torch._dynamo.reset()
        backend = aot_autograd(
            fw_compiler=forward_graph,
            bw_compiler=lambda graph, inputs: graph,
            partition_fn=min_cut_rematerialization_partition,
            decompositions=select_decomp_table(),
        )
        torch.compile(model, backend=backend, fullgraph=True)(input_ids=ids, labels=ids, use_cache=False)

    forward(name, batch, run)
    return kept[0]


def predicted(name: str, batch: MicroBatch) -> int:
    depth, vocab_size, preset, heads = MODELS[name]
    return saved_bytes(parameters(depth, vocab_size, preset, heads), depth, vocab_size, heads, batch)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("rows", "length"), [(1, 1024), (8, 2048)])
@pytest.mark.slow
def test_saved_bytes(name, rows, length, bf16):
    batch = MicroBatch(rows, length, bf16, compiled=False)
    assert predicted(name, batch) == pytest.approx(eager_bytes(name, batch), rel=0.01)


@pytest.mark.parametrize(("name", "bf16"), [("d4", False), ("d12", True)])
@pytest.mark.slow
def test_saved_bytes_compiled(name, bf16):
    """A graph does not depend on its rows: one shape tells as much as several."""
    batch = MicroBatch(8, 2048, bf16, compiled=True)
    assert predicted(name, batch) == pytest.approx(compiled_bytes(name, batch), rel=0.01)


def test_checkpointing_keeps_the_residual_of_each_layer():
    """Of a layer that is computed again only its input is kept; the formula counts one layer more, while it is."""
    batch = MicroBatch(2, 512, bf16=False, compiled=False, checkpointing=True)
    one_layer = predicted("d4", MicroBatch(2, 512, False, False)) / 4
    measured = eager_bytes("d4", batch)
    assert measured < predicted("d4", batch) < measured + one_layer
