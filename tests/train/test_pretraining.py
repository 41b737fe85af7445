"""The pretraining loop: its precision."""

import pytest
import torch

from nanohf import recipe
from nanohf.recipe import RecipeError
from nanohf.train import hardware
from nanohf.train.hardware import choose_precision, compiled

CPU = "cpu"


@pytest.mark.parametrize(
    ("launched", "wanted", "native", "chosen"),
    [
        ("no", "auto", "AMX", "bf16"),
        ("no", "auto", None, "no"),
        ("no", "no", "AMX", "no"),
        ("no", "bf16", None, "bf16"),
        ("bf16", "no", None, "bf16"),
    ],
)
def test_the_launcher_then_the_recipe_then_the_machine(monkeypatch, capsys, launched, wanted, native, chosen):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    monkeypatch.setattr(hardware, "multiplies_bf16", lambda device_type: native)
    assert choose_precision(wanted, CPU) == chosen
    assert ("fp32 (" if chosen == "no" else "bf16 (") in capsys.readouterr().out


def test_a_bare_no_in_yaml_means_no(tmp_path):
    recipe_file = tmp_path / "pretrain.yaml"
    recipe_file.write_text("mixed_precision: no\n")
    assert recipe.load("pretrain", ["--config", str(recipe_file)])[0].mixed_precision == "no"
    recipe_file.write_text("mixed_precision: fp16\n")
    with pytest.raises(RecipeError, match="must be auto, no or bf16"):
        recipe.load("pretrain", ["--config", str(recipe_file)])


def test_fp16_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(RecipeError, match="fp16 must be bf16 or no"):
        choose_precision("auto", CPU)


def test_without_a_compiler_the_model_is_not_compiled(monkeypatch, model, capsys):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/no/compiler"))
    monkeypatch.setenv("PATH", "/nowhere")
    torch._dynamo.reset()
    with torch._inductor.utils.fresh_cache():
        assert compiled(model) is model
    assert "not on this machine" in capsys.readouterr().out
