"""Small models for the tests of this folder."""

import pytest


@pytest.fixture(params=["classic", "everything"])
def either_model(request, small_model):
    """small_model for the classic preset and for all that a config can add; the window is short enough to be felt."""
    if request.param == "classic":
        return small_model

    def make(depth: int = 2, **fields):
        types = ["sliding_attention"] * (depth - 1) + ["full_attention"]
        added = {"preset": "modern", "backout": True, "query_key_scale": 1.2, "layer_types": types, "sliding_window": 8}
        return small_model(depth, **(added | fields))

    return make
