"""A saved model claims the positions that were trained, its cache is on, and whatever generates respects both."""

import json

import pytest
import torch
from datasets import Dataset
from tiny_stages import CHAT, PRETRAIN, run
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig

from nanohf.stages import pretrain, sft
from nanohf.train.positions import cover, trained_positions


def claimed(folder) -> tuple[int, int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return json.loads((folder / "config.json").read_text())["max_position_embeddings"], tokenizer.model_max_length


def decodes_by_itself(folder) -> bool:
    """A loop that takes the cache as the model gives it. Where it gives none, the second token has lost the first."""
    model, ids = AutoModelForCausalLM.from_pretrained(folder), torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        cache = model(ids).past_key_values
        later = model(torch.tensor([[8]]), past_key_values=cache).logits
        return torch.allclose(later[0, -1], model(torch.tensor([[5, 6, 7, 8]])).logits[0, -1], atol=1e-5)


def longest_conversation(folder) -> int:
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    talks = [json.loads(line) for line in (folder / "talks/train.jsonl").read_text().splitlines()]
    return max(len(tokenizer.apply_chat_template(t["messages"], return_dict=True).input_ids) for t in talks)


@pytest.mark.slow
def test_a_later_stage_claims_its_longer_rows(folder, caplog):
    run(pretrain.main, folder, "pretrain", PRETRAIN.replace("max_length: 32", "max_length: 16"), "run")
    assert claimed(folder / "run/pretrain") == (16, 16)
    assert decodes_by_itself(folder / "run/pretrain")

    longest = longest_conversation(folder)
    assert longest - 2 > 16
    chat = CHAT.replace("{folder}/model", "pretrain")
    packed = chat.replace("conversations_per_step: 1", "packing: true\nbatch_tokens: 64")
    run(sft.main, folder, "sft", packed, "run")
    assert claimed(folder / "run/sft") == (longest, longest)
    assert decodes_by_itself(folder / "run/sft")
    assert "longer than the specified maximum" not in caplog.text

    cut = CHAT.replace("stage: sft", "stage: midtrain").replace("max_length: 64", f"max_length: {longest - 2}")
    run(sft.main, folder, "midtrain", cut.replace("{folder}/model", "pretrain"), "run")
    assert claimed(folder / "run/midtrain") == (longest - 2, longest - 2)
    assert decodes_by_itself(folder / "run/midtrain")

    shorter = CHAT.replace("{folder}/model", "{folder}/run/sft").replace("max_length: 64", "max_length: 20")
    run(sft.main, folder, "sft", shorter, "later")
    assert claimed(folder / "later/sft") == (longest, longest), "a model does not forget its positions"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_length": 1024}, 9),
        ({"max_length": 6}, 6),
        ({"max_length": None}, 9),
        ({"max_length": 1024, "packing": True}, 9),
        ({"max_length": 1024, "packing": True, "packing_strategy": "wrapped"}, 1024),
    ],
)
def test_the_longest_stretch_of_positions(tmp_path, options, expected):
    rows = Dataset.from_dict({"input_ids": [[1] * n for n in (3, 9, 5)], "labels": [[1] * n for n in (3, 9, 5)]})
    args = SFTConfig(tmp_path, bf16=False, use_cpu=True, **options)
    assert trained_positions(rows.shuffle(seed=0), args) == expected


def test_scaled_rotary_positions_stay(small_model, tokenizer):
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    model = small_model(max_position_embeddings=16, rope_parameters=dynamic)
    cover(model, tokenizer, 64)
    assert (model.config.max_position_embeddings, tokenizer.model_max_length) == (16, 16)
