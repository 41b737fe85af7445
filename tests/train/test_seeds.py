"""The seed decides all that is random: the same recipe gives the same weights bit for bit, another seed others.

GRPO's turn is in grpo/test_grpo_stage.py, where there is a model that is sometimes right.
"""

import pytest
import torch
from tiny_stages import CHAT, PRETRAIN, run

from nanohf.stages import pretrain, sft

LORA = "use_peft: true\nlora_r: 2\nlora_alpha: 4\nlora_dropout: 0.2\n"


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("main", "stage", "recipe"),
    [
        (pretrain.main, "pretrain", PRETRAIN),
        (sft.main, "sft", CHAT),
        (sft.main, "sft", CHAT + LORA),
        (sft.main, "sft", CHAT + LORA + "optimizer: trl\nlearning_rate: 1.0e-3\n"),
    ],
    ids=["pretrain", "sft", "LoRA", "LoRA and AdamW"],
)
@pytest.mark.slow
def test_the_seed_decides(folder, main, stage, recipe):
    first, again, other = (
        run(main, folder, stage, recipe, name, seed) for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert same(first, again)
    assert not same(first, other)
