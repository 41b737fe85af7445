"""A saved folder is complete: it loads and generates where nanohf is not installed."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import nanohf.model

FILES = sorted(Path(nanohf.model.__file__).parent.glob("*_nanohf.py"))


def run(code: str, *args, tmp_path: Path) -> str:
    """stdout of a fresh Python without a cache of remote code, with as many threads as here: sums depend on them."""
    threads = str(torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf_home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT_NANOHF = """
import sys
sys.modules["nanohf"] = None  # importing it raises ImportError
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
folder, sent = sys.argv[1], torch.load(sys.argv[2], weights_only=True)
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
base = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
assert [type(x).__name__ for x in (config, base, model)] == ["NanoHFConfig", "NanoHFModel", "NanoHFForCausalLM"]
assert all(type(x).__module__.startswith("transformers_modules.") for x in (config, base, model))
fresh = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
assert not fresh.lm_head.weight.any()
with torch.no_grad():
    assert torch.equal(model(sent["ids"]).logits, sent["logits"])
    assert torch.equal(base(sent["ids"]).last_hidden_state, sent["hidden"])
mask = torch.ones_like(sent["ids"])
assert torch.equal(model.generate(sent["ids"], attention_mask=mask, max_new_tokens=8, do_sample=False), sent["text"])
model.save_pretrained(sys.argv[3])
print("fine")
"""


@pytest.mark.slow
def test_every_auto_class_loads_without_nanohf(small_model, tmp_path):
    model = small_model(depth=3)
    model.save_pretrained(tmp_path / "saved", max_shard_size="100KB")
    assert len(list((tmp_path / "saved").glob("model-*.safetensors"))) > 2
    ids = torch.randint(128, (2, 9))
    with torch.no_grad():
        output = model(ids, output_hidden_states=True)
    text = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    sent = {"ids": ids, "logits": output.logits, "hidden": output.hidden_states[-1], "text": text}
    torch.save(sent, tmp_path / "sent.pt")

    copy = tmp_path / "copy"
    out = run(WITHOUT_NANOHF, tmp_path / "saved", tmp_path / "sent.pt", copy, tmp_path=tmp_path)
    assert out.strip() == "fine"
    for name in ("configuration_nanohf.py", "modeling_nanohf.py"):  # saved by a stranger, the code still travels
        assert (copy / name).read_bytes() == (FILES[0].parent / name).read_bytes()
    assert torch.equal(AutoModelForCausalLM.from_pretrained(copy)(ids).logits, output.logits)


ALONE = """
import sys
for name in ("nanohf", "trl", "peft", "datasets", "accelerate", "evaluate", "lm_eval", "trackio"):
    sys.modules[name] = None  # as if not installed
from model import NanoHFConfig, NanoHFForCausalLM
import torch
model = NanoHFForCausalLM(NanoHFConfig.from_depth(1, vocab_size=64))
model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
print(model.num_parameters())
"""


@pytest.mark.slow
def test_the_folder_copied_alone_runs(tmp_path):
    shutil.copytree(FILES[0].parent, tmp_path / "model", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(ALONE, tmp_path=tmp_path).strip() == str(2 * 64 * 64 + 12 * 64 * 64)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_imports_only_torch_transformers_and_the_sibling(file):
    siblings = {f.stem for f in FILES}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            roots = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module in siblings  # `from ..x` would fail at save, `from . import x` at load
            continue
        elif isinstance(node, ast.ImportFrom):
            roots = {node.module.partition(".")[0]}
        else:
            continue
        # `strict` of huggingface_hub, which transformers requires, is how its own configs check their fields' types.
        assert roots <= {"torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names
