"""A checkpoint of nanochat itself becomes a nanohf model with the same logits and ids, or is refused unrun."""

import json
import os
import shutil
import sys

import pytest
import torch
from nanochat_files import FIELDS, SPECIAL, TOUCH, Call, spread, state, weights_of
from transformers import AutoModelForCausalLM, AutoTokenizer, NanoChatForCausalLM

from nanohf.cli import main
from nanohf.convert.nanochat_checkpoint import WEIGHTS, nanochat_logits
from nanohf.convert.nanochat_model import require_same_logits


def converted(source, tmp_path):
    return main(["convert", str(source), str(tmp_path / "out")])


def refusal(source, tmp_path, capsys):
    """The message, with nothing left behind."""
    before = sorted(tmp_path.rglob("*"))
    assert converted(source, tmp_path) == 2
    assert sorted(tmp_path.rglob("*")) == before
    return capsys.readouterr().err


# ---------------------------------------------------------------- the model


def test_nanochats_own_logits():
    """Against numbers that nanochat's GPT of 2025-11 gave for these weights, its cos and sin left in fp32."""
    fields = FIELDS | {"vocab_size": 40}
    logits = nanochat_logits(fields, weights_of(fields), torch.arange(24)[None] * 7 % 40)
    expected = [[0.2273, 1.4958, 1.8966, -0.6549, -0.7837, -0.6335], [0.3463, -0.3189, -2.4816, 0.5572, 1.2048, 1.1318]]
    torch.testing.assert_close(logits[0, [5, 23], :6], torch.tensor(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", ["plain", "compiled", "bf16 embedding", "all bf16", "padded", "full heads"])
def test_model_and_tokenizer_are_carried(checkpoint, tiktoken, tmp_path, capsys, case):
    fields = FIELDS | ({"n_kv_head": 4} if case == "full heads" else {})
    weights = weights_of(fields, rows=320 if case == "padded" else None)
    if case == "bf16 embedding":
        weights["transformer.wte.weight"] = weights["transformer.wte.weight"].bfloat16()
    if case == "all bf16":
        weights = {name: weight.bfloat16() for name, weight in weights.items()}
    saved = {f"_orig_mod.{name}": w for name, w in weights.items()} if case == "compiled" else weights
    source = checkpoint(fields, saved)
    tiktoken.undo()
    assert "tiktoken" not in sys.modules
    assert converted(source, tmp_path) == 0
    assert "bit-exact" in capsys.readouterr().out

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == (torch.bfloat16 if case == "all bf16" else torch.float32)
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"][:282])
    assert torch.equal(model.model.layers[1].self_attn.k_proj.weight, weights["transformer.h.1.attn.c_k.weight"])
    ids = torch.randint(282, (2, 40))
    with torch.no_grad():
        logits = nanochat_logits(fields, weights, ids)[..., :282]
        torch.testing.assert_close(model.float()(ids).logits, logits, rtol=0, atol=1e-5)
    assert model.config.max_position_embeddings == 64

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (len(tokenizer), tokenizer.model_max_length) == (282, 64)
    assert (model.config.bos_token_id, model.config.eos_token_id) == (SPECIAL["<|bos|>"], SPECIAL["<|assistant_end|>"])
    chat = [{"role": "user", "content": "pens"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    names = ("<|bos|>", "<|user_start|>", 112, 258, "<|user_end|>", "<|assistant_start|>")
    assert prompt.input_ids[0].tolist() == [SPECIAL.get(name, name) for name in names]
    assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1] <= 9

    if case == "plain":  # and on, to what is served without remote code
        assert main(["convert", str(tmp_path / "out"), str(tmp_path / "served")]) == 0
        with torch.no_grad():
            served = NanoChatForCausalLM.from_pretrained(tmp_path / "served")(ids).logits
        torch.testing.assert_close(served, logits, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- the model of 2026-07

TODAY = FIELDS | {"sequence_len": 200, "n_layer": 6, "window_pattern": "SSSL"}  # windows of 128 and the own token


def todays_weights(fields, rows=None):
    kv, n = fields["n_embd"] // fields["n_head"] * fields["n_kv_head"], fields["n_layer"]
    shapes = {"smear_gate.weight": (1, 24)}
    for i in range(n - 1, -1, -2):
        shapes[f"value_embeds.{i}.weight"] = (rows or fields["vocab_size"], kv)
        shapes[f"transformer.h.{i}.attn.ve_gate.weight"] = (fields["n_kv_head"], 12)
    scalars = {"resid_lambdas": torch.linspace(1.2, 0.8, n), "x0_lambdas": torch.linspace(-0.3, 0.5, n)}
    scalars |= {"backout_lambda": torch.tensor([0.3]), "smear_lambda": torch.zeros(1)}
    return weights_of(fields, rows) | {name: spread(name, shape) for name, shape in shapes.items()} | scalars


@pytest.mark.parametrize("case", ["plain", "padded, bf16 embeddings"])
def test_todays_model_is_carried(checkpoint, tmp_path, case):
    weights = todays_weights(TODAY, rows=None if case == "plain" else 320)
    if case != "plain":
        weights |= {name: w.bfloat16() for name, w in weights.items() if "wte" in name or "value_embeds" in name}
    assert converted(checkpoint(TODAY, weights), tmp_path) == 0

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    config, layers = model.config, model.model.layers
    assert [kind[0] for kind in config.layer_types] == ["s", "s", "s", "f", "s", "f"]  # the last one is full
    assert (config.sliding_window, config.rope_parameters["rope_theta"], config.query_key_scale) == (129, 1e5, 1.2)
    assert [layer.residual_scale.item() for layer in layers] == weights["resid_lambdas"].tolist()
    assert [layer.input_scale.item() for layer in layers] == weights["x0_lambdas"].tolist()
    assert torch.equal(model.model.backout_scale, weights["backout_lambda"])
    table = weights["value_embeds.3.weight"][:282]
    assert torch.equal(layers[3].self_attn.value_embedding.weight, table.float())
    assert torch.equal(layers[3].self_attn.value_gate.weight, weights["transformer.h.3.attn.ve_gate.weight"])

    ids = torch.randint(282, (2, 200))
    with torch.no_grad():
        logits = nanochat_logits(TODAY, weights, ids)[..., :282]
        torch.testing.assert_close(model(ids).logits, logits, rtol=0, atol=1e-5)
        start = model(ids[:, :190], use_cache=True)
        rest = model(ids[:, 190:], past_key_values=start.past_key_values).logits
        torch.testing.assert_close(rest, logits[:, 190:], rtol=0, atol=1e-5)


def test_the_window_is_128_tokens_and_the_own_one():
    """The first of two layers has a window; the second's attention adds nothing, so a token reaches no further."""
    fields = TODAY | {"n_layer": 2}
    weights = todays_weights(fields)
    weights["transformer.h.1.attn.c_proj.weight"].zero_()
    ids = torch.arange(200)[None] * 7 % 282
    other = ids.clone()
    other[0, 10] += 1
    changed = (nanochat_logits(fields, weights, ids) != nanochat_logits(fields, weights, other)).any(-1)[0]
    assert changed.nonzero()[[0, -1], 0].tolist() == [10, 138]


@pytest.mark.parametrize("name", ["value_embeds.1", "ve_gate", "resid_lambdas", "x0_lambdas", "backout_lambda"])
def test_every_piece_counts_in_the_logits(name):
    weights = todays_weights(TODAY)
    changed = {key: w * 0.9 if name in key else w for key, w in weights.items()}
    ids = torch.arange(20)[None]
    assert (nanochat_logits(TODAY, weights, ids) - nanochat_logits(TODAY, changed, ids)).abs().max() > 1e-3


def test_the_probe_notices_every_field(checkpoint, tmp_path):
    weights = todays_weights(TODAY)
    assert converted(checkpoint(TODAY, weights), tmp_path) == 0
    config = tmp_path / "out" / "config.json"
    fields = json.loads(config.read_text())
    fully = ["full_attention"] * 6
    for wrong in (
        {"sliding_window": 128},
        {"layer_types": fully},
        {"layer_types": ["sliding_attention"] * 3 + fully[:3]},
        {"query_key_scale": 1.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
        {"backout": False},
        {"residual_scalars": False},
        {"value_embeddings": False},
    ):
        config.write_text(json.dumps(fields | wrong))
        with pytest.raises(ValueError, match="logits differ by"):
            require_same_logits(lambda ids, use_cache: nanochat_logits(TODAY, weights, ids), tmp_path / "out")


@pytest.mark.parametrize("value", [1e-6, float("nan")])
def test_smear_is_refused(checkpoint, tmp_path, capsys, value):
    weights = todays_weights(TODAY) | {"smear_lambda": torch.tensor([value])}
    assert "smear_lambda not 0 (mixes in" in refusal(checkpoint(TODAY, weights), tmp_path, capsys)


@pytest.mark.parametrize(
    "missing", ["value_embeds", "ve_gate", "resid_lambdas", "backout_lambda", "smear_lambda", "window_pattern", "all"]
)
def test_an_architecture_in_between_is_refused(checkpoint, tmp_path, capsys, missing):
    """`all`: the window_pattern alone is left, with the weights of 2025-11."""
    weights = weights_of(TODAY) if missing == "all" else todays_weights(TODAY)
    weights = {name: weight for name, weight in weights.items() if missing not in name}
    fields = {name: value for name, value in TODAY.items() if name != missing}
    error = refusal(checkpoint(fields, weights), tmp_path, capsys)
    without = error.partition(" without ")[2].partition(" (")[0]
    assert "nothing in it tells its rotary base" in error
    assert (missing in without and ", " not in without) or (missing == "all" and without.count(", ") == 6)


def test_what_no_architecture_has_is_named(checkpoint, tmp_path, capsys):
    weights = weights_of(FIELDS) | dict.fromkeys(["transformer.h.0.router", "transformer.h.1.router"], torch.ones(2))
    source = checkpoint(FIELDS | {"n_expert": 2}, weights)
    assert "nanohf: n_expert=2; transformer.h.N.router.\n" in refusal(source, tmp_path, capsys)


@pytest.mark.parametrize("pattern", ["", "SXL", 4])
def test_refuses_a_wrong_window_pattern(checkpoint, tmp_path, capsys, pattern):
    fields = TODAY | {"window_pattern": pattern}
    assert "is not made of S and L" in refusal(checkpoint(fields, todays_weights(fields)), tmp_path, capsys)


def test_refuses_scalars_of_another_number_of_layers(checkpoint, tmp_path, capsys):
    for wrong in (torch.ones(5), torch.ones(7), torch.ones(()), torch.ones(6, 1)):
        source = checkpoint(TODAY, todays_weights(TODAY) | {"x0_lambdas": wrong})
        assert "are not those of its model_config" in refusal(source, tmp_path, capsys)
        shutil.rmtree(tmp_path / "cache")


# ---------------------------------------------------------------- what is refused


def test_a_wrong_table_is_noticed(checkpoint, monkeypatch, tmp_path, capsys):
    keys, values = "transformer.h.N.attn.c_k.weight", "transformer.h.N.attn.c_v.weight"
    monkeypatch.setitem(WEIGHTS, keys, WEIGHTS[values])
    monkeypatch.setitem(WEIGHTS, values, "model.layers.N.self_attn.k_proj.weight")
    assert "logits differ by" in refusal(checkpoint(), tmp_path, capsys)


@pytest.mark.parametrize("name", ["lm_head.weight", "transformer.h.1.attn.c_k.weight"])
@pytest.mark.parametrize("how", ["missing", "other shape", "infinite"])
def test_refuses_other_weights_than_the_meta_file_tells(checkpoint, tmp_path, capsys, name, how):
    weights = weights_of(FIELDS)
    weight = weights.pop(name)
    if how != "missing":
        weights[name] = weight[:-1] if how == "other shape" else weight / 0
    reason = "logits differ by nan" if how == "infinite" else "not those of its model_config"
    assert reason in refusal(checkpoint(weights=weights), tmp_path, capsys)


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"step": 650}, "does not tell the model's shape: KeyError('model_config')"),
        ({"model_config": {"n_layer": 2}}, "does not tell the model's shape"),
        ({"model_config": FIELDS | {"n_head": 0, "n_layer": "2"}}, "not a positive whole number: n_layer, n_head"),
        ({"model_config": FIELDS | {"n_kv_head": 3}}, "num_key_value_heads=3 must divide num_attention_heads=4"),
        ({"model_config": FIELDS | {"vocab_size": 320}}, "the tokenizer has 282 tokens, the model 320"),
    ],
)
def test_refuses_a_wrong_meta_file(checkpoint, tmp_path, capsys, meta, reason):
    assert reason in refusal(checkpoint(meta=meta), tmp_path, capsys)


def test_refuses_an_incomplete_source(checkpoint, tmp_path, capsys):
    source = checkpoint()
    assert main(["convert", str(source), str(tmp_path / "out"), "--to", "nanochat"]) == 2
    assert "Convert it to nanohf first" in capsys.readouterr().err
    (source / "meta_000650.json").unlink()
    assert "meta_000650.json does not tell" in refusal(source, tmp_path, capsys)
    (tmp_path / "cache" / "tokenizer" / "tokenizer.pkl").unlink()
    assert "has no tokenizer" in refusal(source, tmp_path, capsys)
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refusal(tmp_path / "empty", tmp_path, capsys)


def test_the_tokenizer_beside_the_checkpoint_wins(checkpoint, pickled, tmp_path):
    source = checkpoint()
    (tmp_path / "cache" / "tokenizer" / "tokenizer.pkl").write_bytes(b"another")
    pickled(state()).rename(source / "tokenizer.pkl")
    assert converted(source, tmp_path) == 0


@pytest.mark.parametrize(
    "content", [Call(os.system, TOUCH), {"lm_head.weight": Call(os.system, TOUCH)}, [1], {"lm_head.weight": 1}, None]
)
def test_a_hostile_checkpoint_is_not_run(checkpoint, tmp_path, monkeypatch, capsys, content):
    source = checkpoint()
    torch.save(content, source / "model_000650.pt")
    monkeypatch.chdir(tmp_path)
    assert "is not a file of plain tensors" in refusal(source, tmp_path, capsys)
    assert not (tmp_path / "was_run").exists()


def test_refuses_a_checkpoint_of_whole_numbers(checkpoint, tmp_path, capsys):
    weights = weights_of(FIELDS) | {"lm_head.weight": torch.ones(282, 32, dtype=torch.int64)}
    assert "not a state dict of floating-point weights" in refusal(checkpoint(weights=weights), tmp_path, capsys)
