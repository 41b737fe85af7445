"""What `import nanohf` offers: every name is there and documented, and none is loaded before it is used."""

import inspect
import subprocess
import sys

import pytest
from test_imports import HEAVY

import nanohf

PUBLIC = {"Engine", "MuonAdamW", "NanoHFConfig", "NanoHFForCausalLM", "build_optimizer", "make_plan"}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_exports_are_these():
    assert set(nanohf.__all__) == PUBLIC
    assert set(dir(nanohf)) >= PUBLIC | {"__version__"}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_name_resolves_and_is_documented(name):
    found = getattr(nanohf, name)
    assert callable(found)
    assert len(inspect.getdoc(found) or "") > 100
    assert found.__module__.startswith("nanohf.")
    assert getattr(nanohf, name) is found


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = nanohf.Trainer
    assert not hasattr(nanohf, "trainer")


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, nanohf; dir(nanohf); print([m for m in {sorted(HEAVY)!r} if m in sys.modules])"
    assert run(code) == "[]"
    assert run("import sys, nanohf; print([m for m in sys.modules if m.startswith('nanohf.')])") == "[]"


def test_planning_needs_no_torch():
    code = "import sys; from nanohf import make_plan; make_plan(4); print('torch' in sys.modules)"
    assert run(code) == "False"


def test_the_plan_package_does_not_hide_the_function():
    """The package nanohf.plan takes the attribute `plan` of nanohf, in whatever order they are imported."""
    assert run("import nanohf.plan.plan_text, nanohf; print(nanohf.make_plan(4).depth)") == "4"
    assert run("import nanohf; nanohf.make_plan; import nanohf.plan.plan_text as p; print(p.__name__)").endswith("text")


def test_a_model_trains_a_step_through_the_public_names_alone():
    import torch

    model = nanohf.NanoHFForCausalLM(nanohf.NanoHFConfig.from_depth(1, vocab_size=64))
    before = model.lm_head.weight.clone()
    optimizer = nanohf.build_optimizer(model)
    assert isinstance(optimizer, nanohf.MuonAdamW)
    ids = torch.arange(32).view(2, 16)  # (rows, length)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert not torch.equal(model.lm_head.weight, before)
