"""Tiny real objects that many tests share: a tokenizer trained on the toy world and a model with random weights."""

import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import datasets
import pytest
import torch
from small_run import ROOT, nanohf_run

from nanohf.configs import PretrainConfig
from nanohf.data import world
from nanohf.tokenizer.train import train_tokenizer
from nanohf.train.pretraining import build_model


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
    for folder in ("recipes", "accelerate_configs", "nanohf"):
        (cwd / folder).symlink_to(ROOT / folder)
    return cwd, nanohf_run(cwd, "--name", "demo")
