"""The keys that recipes are checked against are the installed TRL's."""

import inspect
import json

import pytest
from trl import data_utils
from trl.trainer import grpo_trainer, sft_trainer

from nanohf.recipe.trl_keys import CHOICES, FILE, OUR_DEFAULTS, PER_WORD_PROBLEM
from nanohf.train.trl_arguments import installed_keys


@pytest.mark.parametrize("config", ["SFTConfig", "GRPOConfig"])
def test_the_list_is_the_installed_trls(config):
    written = json.loads(FILE.read_text(encoding="utf-8"))[config]
    installed = json.loads(json.dumps(installed_keys()[config]))
    assert written == installed, "run python -m nanohf.train.trl_arguments"
    assert OUR_DEFAULTS[config].keys() <= written.keys()


def test_every_word_that_is_allowed_is_one_that_trl_compares_with():
    sources = [inspect.getsource(module) for module in (grpo_trainer, sft_trainer, data_utils)]
    for choices in CHOICES.values():
        for word in (word for words in choices.values() for word in words if isinstance(word, str)):
            assert word == PER_WORD_PROBLEM or any(f'"{word}"' in source for source in sources), word
