"""TRL's keys for SFT and GRPO, known without importing TRL.

`trl_keys.json` is made from the installed TRL by `python -m nanohf.train.trl_arguments`, and a test compares the two.
"""

import json
from dataclasses import field, make_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

KINDS = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "dict": dict, "null": NoneType}
FILE = Path(__file__).with_name("trl_keys.json")
PER_WORD_PROBLEM = "per_word_problem"  # our loss_type: see train.grpo.loss_weights

# Where TRL's defaults would stop a run without a GPU, cost a fifth of its speed, or train on what users say. None is
# decided by the machine that trains: see `nanohf.train.trl_arguments`.
SHARED = {
    "bf16": None,
    "use_cpu": None,
    "activation_checkpointing": False,
    "report_to": "none",
    "lr_scheduler_type": "linear",
    "disable_tqdm": True,  # train.progress prints instead
}
OUR_DEFAULTS = {
    "SFTConfig": SHARED | {"assistant_only_loss": True},
    "GRPOConfig": SHARED | {"loss_type": PER_WORD_PROBLEM},  # nanochat's: see docs/grpo.md
}

# Words that TRL reads in the midst of training only, when what ran before would be lost.
CHOICES: dict[str, dict[str, tuple[str | bool, ...]]] = {
    "SFTConfig": {"loss_type": ("nll", "dft"), "packing_strategy": ("bfd", "bfd_split", "wrapped")},
    "GRPOConfig": {
        "loss_type": (PER_WORD_PROBLEM, "grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
        "importance_sampling_level": ("token", "sequence"),
        "scale_rewards": ("group", "batch", "none", True, False),
        "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    },
}


@cache
def trl_keys(config: str) -> dict[str, tuple[tuple[type, ...], Any]]:
    """Each key of SFTConfig or GRPOConfig with the kinds of value it takes and its default, ours where we have one."""
    written = json.loads(FILE.read_text(encoding="utf-8"))[config]
    keys = {key: (tuple(KINDS[kind] for kind in kinds), default) for key, (kinds, default) in written.items()}
    return {key: (kinds, OUR_DEFAULTS[config].get(key, default)) for key, (kinds, default) in keys.items()}


@cache
def trl_settings(config: str) -> type:
    """A frozen dataclass with TRL's keys as fields: what a recipe says of them, and defaults."""
    fields = [
        (key, Any, field(default_factory=list) if default == [] else field(default=default))
        for key, (_, default) in trl_keys(config).items()
    ]
    return make_dataclass(config.replace("Config", "Settings"), fields, frozen=True)
