"""On MPS there is no float64 and no torch.cuda: neither is asked of a device that is not known to have it."""

import ast
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanohf.generation.engine import _sample
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.groups import build_optimizer
from nanohf.recipe.loading import load_recipe
from nanohf.train import trl_arguments

ROOT = Path(__file__).parents[2]
ASKED_ANYWHERE = {"is_available", "device_count"}


class NoFloat64(TorchDispatchMode):
    """Refuses what MPS refuses: float64 on the device, which is torch's meta here."""

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        made = function(*arguments, **(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.is_meta and tensor.dtype == torch.float64:
                raise TypeError(f"{function}: float64 on the device")
        return made


def test_the_mode_would_find_it():
    with pytest.raises(TypeError, match="float64 on the device"), NoFloat64():
        torch.ones(2, device="meta").double()


@pytest.mark.parametrize("preset", ["classic", "modern"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_backward_optimizer_and_sampling_have_no_float64(preset, dtype):
    config = NanoHFConfig.from_depth(2, vocab_size=128, hidden_size=64, num_attention_heads=2, preset=preset)
    with torch.device("meta"):
        model = NanoHFForCausalLM(config)
    optimizer = build_optimizer(model, normuon=0.9, weight_decay=0.1)
    ids = torch.zeros(2, 16, dtype=torch.long, device="meta")
    with NoFloat64():
        for _ in range(2):
            with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                output = model(input_ids=ids, labels=ids, use_cache=False)
            output.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        sampled = _sample(output.logits[:, -1].float(), torch.rand(2, device="meta"), 1.0, 50, cap=15.0)
    assert sampled.shape == (2,)


def test_float64_is_used_where_scores_are_summed_on_the_cpu_only():
    files = {path.name for path in (ROOT / "nanohf").rglob("*.py") if {"double", "float64"} & attributes(path)}
    assert files == {"bpb.py", "held_out.py"}


def attributes(path: Path) -> set[str]:
    return {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


def unguarded(source: str) -> list[str]:
    """Uses of torch.cuda that no `if` with the word cuda stands around."""
    found: list[str] = []

    def visit(node: ast.AST, guarded: bool) -> None:
        is_use = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch.cuda"
        if is_use and not guarded and node.attr not in ASKED_ANYWHERE:
            found.append(ast.unparse(node))
        if isinstance(node, ast.If | ast.IfExp) and "cuda" in ast.unparse(node.test):
            then = node.body if isinstance(node.body, list) else [node.body]
            for child in ast.iter_child_nodes(node):
                visit(child, guarded or child in then)
        else:
            for child in ast.iter_child_nodes(node):
                visit(child, guarded)

    visit(ast.parse(source), False)
    return found


def test_torch_cuda_is_used_behind_a_check():
    assert unguarded("torch.cuda.synchronize()") == ["torch.cuda.synchronize"]
    assert unguarded("a = torch.cuda.x() if device == 'cuda' else 0") == []
    assert unguarded("if device == 'cuda': pass\nelse: torch.cuda.x()") == ["torch.cuda.x"]
    found = {path.name: uses for path in (ROOT / "nanohf").rglob("*.py") if (uses := unguarded(path.read_text()))}
    assert found == {}


@pytest.mark.parametrize("kind", ["mps", "cpu"])
def test_post_training_uses_the_device_that_pretraining_uses(kind, monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr(trl_arguments, "device_type", lambda: kind)
    real = trl_arguments.CONFIGS["SFTConfig"]
    monkeypatch.setitem(trl_arguments.CONFIGS, "SFTConfig", lambda **keys: given.update(keys) or real(**keys))
    recipe = load_recipe("sft", ["--config", str(ROOT / "recipes/demo/sft.yaml")])
    trl_arguments.training_arguments(recipe, str(tmp_path))
    assert given["use_cpu"] == (kind == "cpu")
    assert given["bf16"] is False or kind == "cpu"
