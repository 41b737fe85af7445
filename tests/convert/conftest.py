"""The files of nanochat's cache, for the tests of this folder."""

import json
import pickle
import sys
import types

import pytest
import torch
from nanochat_files import FIELDS, Encoding, state, weights_of


@pytest.fixture
def tiktoken(monkeypatch):
    """Encoding under tiktoken's name, which is needed to write such a pickle and must not be to read it."""
    with monkeypatch.context() as patch:
        for name in ("tiktoken", "tiktoken.core"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["tiktoken.core"].Encoding = Encoding
        patch.setattr(Encoding, "__module__", "tiktoken.core")
        yield patch


@pytest.fixture
def pickled(tiktoken, tmp_path):
    """pickled(object): the file it was pickled to."""

    def write(content):
        path = tmp_path / "tokenizer.pkl"
        path.write_bytes(pickle.dumps(content))
        return path

    return write


@pytest.fixture
def checkpoint(pickled, tmp_path):
    """checkpoint(fields, weights, meta): its folder, laid out as in nanochat's cache."""

    def write(fields=FIELDS, weights=None, meta=None):
        folder = tmp_path / "cache" / "chatsft_checkpoints" / "d20"
        folder.mkdir(parents=True)
        torch.save({"transformer.wte.weight": torch.zeros(1)}, folder / "model_000099.pt")  # of an earlier step
        torch.save(weights_of(fields) if weights is None else weights, folder / "model_000650.pt")
        (folder / "meta_000650.json").write_text(json.dumps(meta or {"step": 650, "model_config": fields}))
        (tmp_path / "cache" / "tokenizer").mkdir()
        pickled(state()).rename(tmp_path / "cache" / "tokenizer" / "tokenizer.pkl")
        return folder

    return write
