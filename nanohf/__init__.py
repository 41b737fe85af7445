"""nanohf: a small GPT from raw text to a chat model, on the Hugging Face stack, with one dial: depth.

The public API, loaded when it is first used, so that `import nanohf` costs nothing:

    NanoHFConfig, NanoHFForCausalLM    the model, as transformers knows it
    MuonAdamW, build_optimizer         Muon and AdamW in one optimizer, for this model or another
    Engine                             generation with a calculator
    make_plan                          what a model costs before it is trained
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanohf.generation.engine import Engine
    from nanohf.model import NanoHFConfig, NanoHFForCausalLM
    from nanohf.optim.groups import build_optimizer
    from nanohf.optim.muon import MuonAdamW
    from nanohf.plan.plan_text import make_plan

__version__ = "0.1.0"
__all__ = ["Engine", "MuonAdamW", "NanoHFConfig", "NanoHFForCausalLM", "build_optimizer", "make_plan"]

# Not `plan`: that is the package nanohf.plan, and Python would put it in the function's place once it is imported.
_PLACES = {
    "Engine": ("nanohf.generation.engine", "Engine"),
    "MuonAdamW": ("nanohf.optim.muon", "MuonAdamW"),
    "NanoHFConfig": ("nanohf.model", "NanoHFConfig"),
    "NanoHFForCausalLM": ("nanohf.model", "NanoHFForCausalLM"),
    "build_optimizer": ("nanohf.optim.groups", "build_optimizer"),
    "make_plan": ("nanohf.plan.plan_text", "make_plan"),
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'nanohf' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    globals()[name] = value = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
