"""Conversion to and from transformers' NanoChat: bit-exact, complete, loadable by a stranger, or refused."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    NanoChatConfig,
    NanoChatForCausalLM,
)

from nanohf.cli import main
from nanohf.convert.nanochat_model import from_nanochat, to_nanochat
from nanohf.model import NanoHFConfig, NanoHFForCausalLM


@pytest.fixture
def folder(tmp_path, small_model, tokenizer):
    """A finished stage's folder: weights, tokenizer and generation config."""
    model = small_model(
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.generation_config = GenerationConfig(
        max_new_tokens=5, eos_token_id=[tokenizer.eos_token_id, tokenizer.bos_token_id], top_k=7, do_sample=True
    )
    model.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def nanochat_folder(path, **fields):
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    NanoChatForCausalLM(NanoChatConfig(**(shape | {"num_attention_heads": 2} | fields))).save_pretrained(path)
    return path


PLAIN = """
import sys
sys.modules["nanohf"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = torch.tensor([tokenizer("Tom has 3 pens.").input_ids])
with torch.no_grad():
    torch.save({"class": type(model).__name__, "ids": ids, "logits": model(ids).logits}, sys.argv[2])
"""


@pytest.mark.slow
def test_to_nanochat_loads_without_remote_code(folder, tmp_path):
    to_nanochat(folder, tmp_path / "there")
    assert not list((tmp_path / "there").glob("*.py"))
    subprocess.run(
        [sys.executable, "-c", PLAIN, str(tmp_path / "there"), str(tmp_path / "seen.pt")], check=True, cwd=tmp_path
    )
    seen = torch.load(tmp_path / "seen.pt", weights_only=True)
    assert seen["class"] == "NanoChatForCausalLM"
    assert seen["ids"][0].tolist() == AutoTokenizer.from_pretrained(folder)("Tom has 3 pens.").input_ids
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(seen["ids"]).logits
    torch.testing.assert_close(seen["logits"], logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_is_bit_exact(folder, tmp_path, dtype):
    AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).save_pretrained(folder)
    to_nanochat(folder, tmp_path / "there")
    from_nanochat(tmp_path / "there", tmp_path / "back")

    before, there, back = (load_file(tmp_path / d / "model.safetensors") for d in ("source", "there", "back"))
    assert before.keys() == there.keys() == back.keys()
    for name, weight in before.items():
        assert weight.dtype == there[name].dtype == back[name].dtype == dtype
        assert torch.equal(weight, there[name])
        assert torch.equal(weight, back[name])

    models = [AutoModelForCausalLM.from_pretrained(tmp_path / d) for d in ("source", "back")]
    assert all(isinstance(model, NanoHFForCausalLM) for model in models)
    before, back = (model.config.to_dict() | {"_name_or_path": None} for model in models)
    assert before == back
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "back" / file).read_bytes() == (folder / file).read_bytes()
    for there in ("there", "back"):
        settings = GenerationConfig.from_pretrained(tmp_path / there)
        assert settings.to_diff_dict() == GenerationConfig.from_pretrained(folder).to_diff_dict()
    assert {p.name for p in (tmp_path / "back").glob("*.py")} == {"configuration_nanohf.py", "modeling_nanohf.py"}
    assert not list(tmp_path.glob(".*.partial"))


def test_a_cache_that_a_trainer_switched_off_is_on_again(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.use_cache = False
    model.save_pretrained(folder)
    to_nanochat(folder, tmp_path / "there")
    from_nanochat(tmp_path / "there", tmp_path / "back")
    for name in ("there", "back"):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert loaded(torch.tensor([[1, 2, 3]])).past_key_values.get_seq_length() == 3


def test_chat_template_and_generate_are_carried(folder, tmp_path):
    to_nanochat(folder, tmp_path / "there")
    texts = []
    for path in (folder, tmp_path / "there"):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
        chat = [{"role": "user", "content": "What is 3*12?"}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        texts.append(model.generate(**prompt, do_sample=False))
    assert torch.equal(*texts)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
        {"hidden_act": "gelu", "final_logit_softcapping": None, "eos_token_id": None},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 50_000.0}},
    ],
    ids=str,
)
def test_from_nanochat_carries_every_shared_field(tmp_path, fields):
    source = nanochat_folder(tmp_path / "source", **fields)
    from_nanochat(source, tmp_path / "ours")
    to_nanochat(tmp_path / "ours", tmp_path / "back")
    models = [NanoChatForCausalLM.from_pretrained(tmp_path / d) for d in ("source", "back")]
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a, b)
    before, back = (model.config.to_dict() | {"_name_or_path": None} for model in models)
    assert before == back


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"attention_bias": True}, "attention_bias=True"),
        ({"attention_dropout": 0.1}, "attention_dropout=0.1"),
        ({"head_dim": 32}, "head_dim=32"),
    ],
)
def test_what_cannot_be_carried_is_said(tmp_path, fields, reason):
    with pytest.raises(ValueError, match=reason):
        from_nanochat(nanochat_folder(tmp_path / "source", **fields), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_all_problems_are_said_at_once(tmp_path):
    source = nanochat_folder(tmp_path / "source", attention_bias=True, attention_dropout=0.1)
    with pytest.raises(ValueError, match=r"attention_bias=True .*attention_dropout=0.1"):
        from_nanochat(source, tmp_path / "target")


def test_refuses_an_existing_target_and_leaves_it(folder, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="exists"):
        to_nanochat(folder, tmp_path / "target")
    assert [p.name for p in (tmp_path / "target").iterdir()] == ["mine.txt"]


def test_refuses_the_wrong_source(folder, tmp_path):
    with pytest.raises(ValueError, match="type 'nanohf', not 'nanochat'"):
        from_nanochat(folder, tmp_path / "target")
    with pytest.raises(ValueError, match=r"no config\.json"):
        to_nanochat(tmp_path / "nowhere", tmp_path / "target")


@pytest.mark.parametrize("missing", ["lm_head.weight", "model.layers.1.mlp.fc2.weight"])
def test_refuses_a_source_without_all_its_weights(folder, tmp_path, missing):
    weights = load_file(folder / "model.safetensors")
    del weights[missing]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"missing_keys: {missing}"):
        to_nanochat(folder, tmp_path / "target")


def test_refuses_when_logits_disagree_and_leaves_nothing(tmp_path):
    """`is_causal` is no NanoChat field, yet transformers obeys it; the probe batch notices."""
    source = nanochat_folder(tmp_path / "source", is_causal=False)
    with pytest.raises(ValueError, match="logits differ by"):
        from_nanochat(source, tmp_path / "target")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_command(folder, tmp_path, capsys):
    assert main(["convert", str(folder), str(tmp_path / "there"), "--to", "nanochat"]) == 0
    assert "bit-exact" in capsys.readouterr().out
    assert main(["convert", str(folder), str(tmp_path / "there"), "--to", "nanochat"]) == 2
    assert "exists" in capsys.readouterr().err


def test_the_modern_preset_is_refused_by_the_names_of_what_it_has(tmp_path):
    windows = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    config = NanoHFConfig.from_depth(2, 64, preset="modern", backout=True, query_key_scale=1.2, **windows)
    NanoHFForCausalLM(config).save_pretrained(tmp_path / "modern")
    with pytest.raises(ValueError, match=r"value_embeddings=True.*residual_scalars.*backout.*1\.2.*sliding_window"):
        to_nanochat(tmp_path / "modern", tmp_path / "out")
    assert not (tmp_path / "out").exists()
