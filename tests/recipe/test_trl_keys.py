"""The keys that recipes are checked against are the installed TRL's."""

import json

import pytest

from nanohf.recipe.trl_keys import FILE, OUR_DEFAULTS
from nanohf.train.trl_arguments import installed_keys


@pytest.mark.parametrize("config", ["SFTConfig", "GRPOConfig"])
def test_the_list_is_the_installed_trls(config):
    written = json.loads(FILE.read_text(encoding="utf-8"))[config]
    installed = json.loads(json.dumps(installed_keys()[config]))
    assert written == installed, "run python -m nanohf.train.trl_arguments"
    assert OUR_DEFAULTS[config].keys() <= written.keys()
