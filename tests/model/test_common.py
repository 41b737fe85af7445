"""What transformers' own test mixins ask of a causal model, where no other file here asks it; docs/model.md has all."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CompileConfig,
    DynamicCache,
    NanoChatConfig,
    NanoChatForCausalLM,
    pipeline,
)

from nanohf.convert.nanochat_model import FIELDS
from nanohf.model import NanoHFConfig, NanoHFModel

V, SEQ = 128, 24


def assert_close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.fixture(params=[{}, {"depth": 4, "num_key_value_heads": 1}], ids=["equal heads", "grouped"])
def model(request, small_model):
    return small_model(**request.param)


@pytest.fixture
def ids():
    return torch.randint(V, (2, SEQ), generator=torch.Generator().manual_seed(0))


def greedy(model, ids, **options):
    """The new tokens, 10 a row unless told otherwise."""
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 10, "do_sample": False} | options
    return model.generate(ids, **options)[:, ids.shape[1] :]


# ---------------------------------------------------------------- the configuration


def test_config_round_trip(tmp_path):
    fields = {
        "vocab_size": 99,
        "hidden_size": 48,
        "intermediate_size": 37,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 77,
        "hidden_act": "gelu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
        "final_logit_softcapping": 30.0,
        "use_cache": False,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "pad_token_id": 2,
        "tie_word_embeddings": True,
    }
    config = NanoHFConfig(**fields)
    assert {name: getattr(config, name) for name in fields} == fields
    config.save_pretrained(tmp_path)
    for loaded in (NanoHFConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is NanoHFConfig
        assert loaded.to_diff_dict() | {"_name_or_path": ""} == config.to_diff_dict() | {"_name_or_path": ""}
    assert NanoHFConfig.from_dict(config.to_dict()).to_json_string() == config.to_json_string()
    assert len(NanoHFConfig(num_labels=3).id2label) == 3


# ---------------------------------------------------------------- weights


def test_embeddings_can_be_asked_for_and_replaced(model):
    for part in (model, model.model):
        assert part.get_input_embeddings() is model.model.embed_tokens
        other = nn.Embedding(10, model.config.hidden_size)
        part.set_input_embeddings(other)
        assert model.model.embed_tokens is other
    assert model.get_output_embeddings() is model.lm_head
    head = nn.Linear(model.config.hidden_size, 10, bias=False)
    model.set_output_embeddings(head)
    assert model.lm_head is head


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_vocabulary_shrinks_with_its_head(small_model, tmp_path, ids, tied):
    model = small_model(tie_word_embeddings=tied)
    kept = ids % 100
    before = model(kept).logits[..., :100]
    model.resize_token_embeddings(100)
    assert (model.config.vocab_size, model.vocab_size) == (100, 100)
    assert tuple(model.lm_head.weight.shape) == tuple(model.model.embed_tokens.weight.shape) == (100, 128)
    assert_close(model(kept).logits, before)
    assert model(kept, labels=kept).loss.isfinite()
    assert greedy(model, kept).max() < 100
    model.save_pretrained(tmp_path)
    assert torch.equal(greedy(AutoModelForCausalLM.from_pretrained(tmp_path), kept), greedy(model, kept))
    model.resize_token_embeddings(101, pad_to_multiple_of=64)
    assert model.lm_head.out_features == model.config.vocab_size == 128
    assert_close(model(kept).logits[..., :100], before)


def test_weights_of_another_shape_are_refused_or_begun_anew(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForCausalLM.from_pretrained(tmp_path, vocab_size=200)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, vocab_size=200, ignore_mismatched_sizes=True)
    assert not loaded.lm_head.weight.any()
    assert loaded.model.embed_tokens.weight.std().item() == pytest.approx(1, rel=0.05)
    for name, weight in model.model.layers.named_parameters():
        assert torch.equal(loaded.model.layers.get_parameter(name), weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_loads_in_half_precision(model, tmp_path, ids, dtype):
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    output = loaded(ids, labels=ids)
    assert output.logits.dtype == dtype
    assert output.loss.item() == pytest.approx(model(ids, labels=ids).loss.item(), rel=0.02)
    assert greedy(loaded, ids).shape == (2, 10)


@torch.no_grad()
def test_layers_may_wait_on_disk(model, tmp_path, ids):
    """device_map places whole blocks: their residual additions need both sides on one device."""
    model.save_pretrained(tmp_path / "model", max_shard_size="200KB")
    last = f"model.layers.{model.config.num_hidden_layers - 1}"
    places = {name: "disk" if name == last else "cpu" for name, _ in model.named_modules() if name.count(".") == 2}
    places |= {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    )
    assert loaded.get_parameter(f"{last}.mlp.fc1.weight").device.type == "meta"
    assert_close(loaded(ids).logits, model(ids).logits)
    assert {type(model.get_submodule(last)).__name__} == set(model._no_split_modules)


# ---------------------------------------------------------------- forward and backward


@torch.no_grad()
def test_forward_is_deterministic_and_knows_its_input(model, ids):
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert_close(model.train()(ids).logits, model.eval()(ids).logits)  # there is no dropout
    assert model.main_input_name == "input_ids"
    for part in (model, model.model):
        assert list(inspect.signature(part.forward).parameters)[:2] == ["input_ids", "attention_mask"]


@torch.no_grad()
def test_outputs_asked_for_in_the_config(model, ids):
    model.set_attn_implementation("eager")
    model.config.output_hidden_states = model.config.output_attentions = True
    output = model(ids)
    assert len(output.hidden_states) == model.config.num_hidden_layers + 1
    assert len(output.attentions) == model.config.num_hidden_layers


def test_hidden_states_and_attentions_keep_gradients(model, ids):
    model.set_attn_implementation("eager")
    output = model(ids, output_hidden_states=True, output_attentions=True)
    for kept in (*output.hidden_states, *output.attentions):
        kept.retain_grad()
    output.logits[:, -1].sum().backward()
    for kept in (*output.hidden_states, *output.attentions):
        assert kept.grad.abs().sum() > 0


def test_every_parameter_learns_alike_in_both_attentions(model, ids):
    """Flex attention has no backward on CPU."""
    gradients = []
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        model.zero_grad()
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for (name, _), eager, sdpa in zip(model.named_parameters(), *gradients, strict=True):
        assert eager.abs().sum() > 0, name
        assert_close(sdpa, eager)


def test_learns_one_row_by_heart_and_says_it(ids):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(NanoHFConfig.from_depth(2, vocab_size=V))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.01
    assert torch.equal(greedy(model, ids[:, :2], max_new_tokens=SEQ - 2), ids[:, 2:])


def test_checkpointing_is_switched_on_and_off(model):
    for wanted in (True, False):
        (model.activation_checkpointing_enable if wanted else model.activation_checkpointing_disable)()
        assert model.is_activation_checkpointing == wanted
        assert all(layer.gradient_checkpointing == wanted for layer in model.model.layers)


# ---------------------------------------------------------------- rope types

ROPE = {
    "linear": {"factor": 10.0},
    "dynamic": {"factor": 10.0},
    "yarn": {"factor": 10.0, "original_max_position_embeddings": 16},
    "llama3": {
        "factor": 10.0,
        "original_max_position_embeddings": 16,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}


@pytest.mark.parametrize("kind", ROPE)
@torch.no_grad()
def test_rope_types(small_model, ids, kind):
    """As transformers' NanoChat does; beyond the trained length all differ from no scaling, before it not dynamic."""
    rope = {"rope_type": kind, "rope_theta": 10_000.0} | ROPE[kind]
    plain, scaled = (small_model(max_position_embeddings=16, **f) for f in ({}, {"rope_parameters": rope}))
    theirs = NanoChatForCausalLM(NanoChatConfig(**{field: getattr(scaled.config, field) for field in FIELDS})).eval()
    theirs.load_state_dict(scaled.state_dict())
    for length in (10, SEQ, 10):  # dynamic scaling must also return
        logits = scaled(ids[:, :length]).logits
        assert_close(logits, theirs(ids[:, :length]).logits)
        unscaled = (logits - plain(ids[:, :length]).logits).abs().max() < 1e-5
        assert unscaled == (kind == "dynamic" and length == 10)


# ---------------------------------------------------------------- generation


@pytest.mark.parametrize("options", [{"do_sample": True, "num_return_sequences": 2}, {"num_beams": 2}], ids=str)
def test_generation_returns_what_it_computed(model, ids, options):
    model.set_attn_implementation("eager")
    torch.manual_seed(0)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=3,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        output_hidden_states=True,
        output_attentions=True,
        **({"do_sample": False} | options),
    )
    rows, config = 4, model.config
    assert len(output.scores) == len(output.logits) == len(output.hidden_states) == len(output.attentions) == 3
    assert {tuple(scores.shape) for scores in output.scores} == {(rows, V)}
    for step, (hidden_states, attentions) in enumerate(zip(output.hidden_states, output.attentions, strict=True)):
        queries, keys = (1, SEQ + step) if step else (SEQ, SEQ)
        heads = config.num_attention_heads
        assert [tuple(h.shape) for h in hidden_states] == [(rows, queries, config.hidden_size)] * len(hidden_states)
        assert [tuple(a.shape) for a in attentions] == [(rows, heads, queries, keys)] * config.num_hidden_layers
    for layer in output.past_key_values.layers:
        expected = (rows, config.num_key_value_heads, SEQ + 2, config.head_dim)
        assert tuple(layer.keys.shape) == tuple(layer.values.shape) == expected
    assert output.sequences.shape == (rows if "num_return_sequences" in options else 2, SEQ + 3)


@pytest.mark.slow
def test_sampling_follows_the_seed_and_the_processors(model, ids):
    def sample(seed, **options):
        torch.manual_seed(seed)
        return greedy(model, ids, do_sample=True, max_new_tokens=20, **options)

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    assert torch.equal(sample(1, top_k=1), greedy(model, ids, max_new_tokens=20))
    for row in sample(1, no_repeat_ngram_size=1, bad_words_ids=[[5]]).tolist():
        assert len(set(row)) == 20
        assert 5 not in row


def test_generation_stops_at_eos_and_pads(model, ids):
    expected = greedy(model, ids)
    eos = expected[0, 4].item()
    stop = [row.index(eos) if eos in row else 9 for row in expected.tolist()]
    assert max(stop) > stop[0]  # the rows end at different places
    for options in ({}, {"cache_implementation": "static", "disable_compile": True}):
        found = greedy(model, ids, eos_token_id=eos, pad_token_id=0, **options)
        for row, answer, end in zip(found, expected, stop, strict=True):
            assert torch.equal(row[: end + 1], answer[: end + 1])
            assert not row[end + 1 :].any()
    found = greedy(model, ids[:1], eos_token_id=eos, pad_token_id=0, prompt_lookup_num_tokens=3)
    assert torch.equal(found, expected[:1, : stop[0] + 1])


def test_an_assistant_changes_nothing_but_the_pace(model, ids):
    assistant = AutoModelForCausalLM.from_config(NanoHFConfig.from_depth(1, vocab_size=V)).eval()
    expected = greedy(model, ids[:1])
    for helper in (assistant, model):  # one that guesses wrong and one that guesses right
        assert torch.equal(greedy(model, ids[:1], assistant_model=helper), expected)


@pytest.mark.slow
def test_generation_from_embeddings(model, ids):
    embeds = model.get_input_embeddings()(ids)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 10, "do_sample": False}
    for more in ({}, {"num_beams": 2}, {"cache_implementation": "static", "disable_compile": True}):
        expected = model.generate(ids, **options, **more)
        assert torch.equal(model.generate(inputs_embeds=embeds, **options, **more), expected[:, SEQ:])
        assert torch.equal(model.generate(ids, inputs_embeds=embeds, **options, **more), expected)


def test_generation_continues_from_a_cache(model, ids):
    expected = greedy(model, ids)
    first = model.generate(ids, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    later = model.generate(first.sequences, past_key_values=first.past_key_values, max_new_tokens=6, do_sample=False)
    assert torch.equal(later[:, SEQ:], expected)


def test_generation_with_positions_and_without(model, ids):
    positions = torch.arange(SEQ).expand(2, -1)
    assert torch.equal(greedy(model, ids, position_ids=positions), greedy(model, ids))


def test_generation_from_nothing(small_model):
    model = small_model(bos_token_id=3)
    expected = greedy(model, torch.tensor([[3]]))
    assert torch.equal(model.generate(max_new_tokens=10, do_sample=False)[:, 1:], expected)


@pytest.mark.slow
def test_decoding_compiled_as_one_graph(model, ids):
    compiled = CompileConfig(fullgraph=True, backend="aot_eager", mode=None)
    compiled._compile_all_devices = True  # transformers compiles on GPUs only unless told
    found = greedy(model, ids, cache_implementation="static", compile_config=compiled)
    assert model._compiled_call is not None
    assert torch.equal(found, greedy(model, ids))


def test_prompt_in_chunks(model, ids):
    assert torch.equal(greedy(model, ids, prefill_chunk_size=7), greedy(model, ids))


@torch.no_grad()
def test_cache_can_be_cropped_and_reordered(model, ids):
    cache = DynamicCache(config=model.config)
    model(ids, past_key_values=cache)
    cache.crop(10 - SEQ)
    cache.batch_select_indices(torch.tensor([1, 0]))
    swapped = ids.flip(0)
    assert_close(model(swapped[:, 10:], past_key_values=cache).logits, model(swapped).logits[:, 10:])


# ---------------------------------------------------------------- pipelines


def test_text_generation_pipeline(small_model, tokenizer):
    model = small_model(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    speak = pipeline("text-generation", model=model, tokenizer=tokenizer, max_new_tokens=5, do_sample=False)
    both = [answer[0]["generated_text"] for answer in speak(["Tom has", "3"], batch_size=2)]
    alone = [speak(text)[0]["generated_text"] for text in ("Tom has", "3")]
    assert both == alone  # padded on the left
    assert both[0].startswith("Tom has")
    chat = [{"role": "user", "content": "What is 3*12?"}]
    answer = speak(chat)[0]["generated_text"]
    assert answer[:-1] == chat
    assert answer[-1]["role"] == "assistant"


def test_feature_extraction_pipeline(small_model, tokenizer):
    base = NanoHFModel(small_model(vocab_size=len(tokenizer)).config).eval()
    features = pipeline("feature-extraction", model=base, tokenizer=tokenizer)("Tom has", return_tensors=True)
    ids = tokenizer("Tom has", return_tensors="pt").input_ids
    with torch.no_grad():
        assert_close(features, base(ids).last_hidden_state)


def test_the_docs_name_tests_that_exist():
    folder = Path(__file__).parent
    named = set()
    for line in (folder.parents[1] / "docs" / "model.md").read_text(encoding="utf-8").splitlines():
        file = None
        for its_file, name in re.findall(r"`(?:(test_\w+)::)?(test_\w+)`", line):
            file = its_file or file  # the one named before it
            named.add((file, name))
    exist = {
        (path.stem, name)
        for path in folder.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 30
    assert named <= exist
