"""Tiny real objects that many tests share: a tokenizer trained on the toy world and a model with random weights."""

import math
import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import datasets
import pytest
import torch
from small_run import ROOT, nanohf_run

from nanohf.data import toy_world as world
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.recipe.schemas import PretrainConfig
from nanohf.tokenizer.train_bpe import train_tokenizer
from nanohf.train.pretrain_loop import build_model


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Whatever looks at finished runs is slow, because they have to be made first."""
    for item in items:
        if {"finished", "whole", "runs"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def precision():
    """A stage that ran in this process may have changed how fp32 is multiplied; the next test begins as a fresh one."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="session")
def tokenizer():
    problems = [row["question"] + " " + row["answer"] for row in world.rows("problems", "train", 300)]
    return train_tokenizer([row["text"] for row in world.rows("documents", "train", 300)] + problems, 512)


@pytest.fixture
def model(tokenizer):
    """Depth 2 with weights of a size that makes every token's logits differ (at initialisation they are all 0)."""
    torch.manual_seed(0)
    model = build_model(PretrainConfig(depth=2, preset="classic", num_attention_heads=4), tokenizer)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2)
    return model.eval()


@pytest.fixture
def offline(monkeypatch, tmp_path_factory):
    """Nothing is asked of the network, nothing is left in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished small run: the working directory it is in, as runs/demo, and what it printed."""
    cwd = tmp_path_factory.mktemp("run")
    for folder in ("recipes", "accelerate_configs", "nanohf", "scripts"):
        (cwd / folder).symlink_to(ROOT / folder)
    return cwd, nanohf_run(cwd, "--name", "demo")


@pytest.fixture
def small_model():
    """small_model(depth, vocab_size, **fields): evaluation mode, and no weight zero so that every path counts."""

    def make(depth: int = 2, vocab_size: int = 128, **fields) -> NanoHFForCausalLM:
        torch.manual_seed(1)
        attention = fields.pop("attn_implementation", "sdpa")
        config = NanoHFConfig.from_depth(depth, vocab_size=vocab_size, **fields)
        model = NanoHFForCausalLM._from_config(config, attn_implementation=attention)
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim == 2:
                    p.normal_(0, 1 / math.sqrt(p.shape[1]))
        return model.eval()

    return make
