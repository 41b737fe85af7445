"""Every mode the ecosystem uses the model in gives the same answer."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache

from nanohf.model import NanoHFForCausalLM

ATTENTION = ["eager", "sdpa", "flex_attention"]
CACHES = ["none", "dynamic", "static"]
V, SEQ = 128, 32
LOWEST = torch.finfo(torch.float32).min


def has_value_embeddings(model) -> bool:
    return model.config.value_embeddings


def assert_close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def new_cache(kind: str, model: NanoHFForCausalLM):
    if kind == "dynamic":
        return DynamicCache(config=model.config)
    return StaticCache(config=model.config, max_cache_len=SEQ) if kind == "static" else None


def lonely(model: NanoHFForCausalLM, document: torch.Tensor) -> torch.Tensor:
    """The reference: one document alone, eager attention, no cache, no mask, positions from 0. (seq, vocab_size)"""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    logits = model(document[None], use_cache=False).logits[0]
    model.set_attn_implementation(before)
    return logits


@pytest.fixture
def attention(request):
    """The attention's name. Flex runs its eager form: torch 2.13's CPU kernel does not build for changing lengths."""
    with torch.compiler.set_stance("force_eager" if request.param == "flex_attention" else "default"):
        yield request.param


# ---------------------------------------------------------------- attention x cache x (left padding | packed rows)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("attention", ATTENTION, indirect=True)
@torch.no_grad()
def test_left_padding(either_model, attention, cache, request):
    if (attention, cache) == ("flex_attention", "static"):
        reason = "transformers 5.23: flex's mask reads the static cache's length after the update (NanoChat does too)"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    model = either_model(attn_implementation=attention)
    documents = [torch.randint(V, (length,)) for length in (SEQ, SEQ - 9)]
    ids = torch.stack([F.pad(d, (SEQ - len(d), 0)) for d in documents])
    mask = torch.stack([F.pad(torch.ones_like(d), (SEQ - len(d), 0)) for d in documents])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)

    past = new_cache(cache, model)
    pieces = [(0, SEQ)] if past is None else [(0, SEQ - 4), (SEQ - 4, SEQ - 3), (SEQ - 3, SEQ)]
    logits = torch.cat(
        [
            model(
                ids[:, start:end],
                attention_mask=mask[:, :end],
                position_ids=positions[:, start:end],
                past_key_values=past,
                use_cache=past is not None,
            ).logits
            for start, end in pieces
        ],
        dim=1,
    )
    for row, document in zip(logits, documents, strict=True):
        assert_close(row[SEQ - len(document) :], lonely(model, document))


@pytest.mark.parametrize("attention", ATTENTION, indirect=True)
@torch.no_grad()
def test_packed_rows(either_model, attention):
    """position_ids that start again tell documents apart: without a cache, which is how training runs."""
    model = either_model(attn_implementation=attention)
    lengths = [11, 1, 20]
    ids = torch.randint(V, (2, SEQ))
    positions = torch.cat([torch.arange(n) for n in lengths]).expand(2, -1)
    logits = model(ids, position_ids=positions, use_cache=False).logits
    for row in (0, 1):
        for document, answer in zip(ids[row].split(lengths), logits[row].split(lengths), strict=True):
            assert_close(answer, lonely(model, document))

    changed = ids.clone()
    changed[:, :11] = (changed[:, :11] + 1) % V
    leak = model(changed, position_ids=positions, use_cache=False).logits[:, 11:] - logits[:, 11:]
    assert leak.abs().max() < 1e-5


@pytest.mark.slow
@torch.no_grad()
def test_packed_rows_with_compiled_flex_attention(either_model):
    ids = torch.randint(V, (1, SEQ))
    positions = torch.arange(SEQ).remainder(16)[None]
    logits = either_model(attn_implementation="flex_attention")(ids, position_ids=positions, use_cache=False).logits
    assert_close(logits, either_model(attn_implementation="eager")(ids, position_ids=positions, use_cache=False).logits)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("attention", ATTENTION[:2], indirect=True)
@torch.no_grad()
def test_packed_rows_with_a_cache(either_model, attention, cache):
    """With a cache transformers reads no borders from position_ids; 4D masks state them."""
    model = either_model(attn_implementation=attention)
    lengths = [11, 1, 20]
    ids = torch.randint(V, (1, SEQ))
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    document = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])
    allowed = (document[:, None] == document) & torch.ones(SEQ, SEQ).tril().bool()
    masks = {"full_attention": allowed, "sliding_attention": allowed.triu(-7)}
    masks = {kind: torch.zeros(SEQ, SEQ).masked_fill(~m, LOWEST)[None, None] for kind, m in masks.items()}
    past = new_cache(cache, model)
    logits = model(ids, attention_mask=masks, position_ids=positions, past_key_values=past).logits[0]
    for piece, answer in zip(ids[0].split(lengths), logits.split(lengths), strict=True):
        assert_close(answer, lonely(model, piece))


@pytest.mark.parametrize("fields", [{}, {"depth": 4, "num_key_value_heads": 1}], ids=["equal heads", "grouped"])
def test_greedy_tokens_are_the_same_in_all_modes(either_model, fields):
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[1, :4] = 0
    ids = torch.randint(V, mask.shape)
    options = {"attention_mask": mask, "max_new_tokens": 14, "do_sample": False}
    model = either_model(**fields)
    expected = model.generate(ids, use_cache=False, **options)
    for attention in ATTENTION[:2]:
        model.set_attn_implementation(attention)
        assert torch.equal(model.generate(ids, **options), expected)
        static = model.generate(ids, cache_implementation="static", disable_compile=True, **options)
        assert torch.equal(static, expected)
    with torch.compiler.set_stance("force_eager"):  # flex with a static cache: transformers 5.23's generate raises
        model.set_attn_implementation("flex_attention")
        assert torch.equal(model.generate(ids, **options), expected)


def test_beams_and_prompt_lookup_reorder_and_crop_the_cache_rightly(either_model):
    model = either_model()
    ids = torch.randint(V, (1, 6)).repeat(1, 3)  # repeats, so that lookup proposes tokens
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 10, "do_sample": False}
    greedy = model.generate(ids, use_cache=False, **options)
    assert torch.equal(model.generate(ids, prompt_lookup_num_tokens=3, **options), greedy)
    beams = [model.generate(ids, num_beams=3, use_cache=cached, **options) for cached in (False, True)]
    assert torch.equal(*beams)


# ---------------------------------------------------------------- other ways to call it


@torch.no_grad()
def test_linear_rope_scaling_is_slower_positions(either_model):
    ids = torch.randint(V, (2, SEQ))
    fast = either_model()
    slow = either_model(rope_parameters=fast.config.rope_parameters | {"rope_type": "linear", "factor": 2.0})
    positions = torch.arange(SEQ)[None]
    # with a cache: without one, positions that step by 2 would read as documents of one token
    assert_close(slow(ids, position_ids=2 * positions, use_cache=True).logits, fast(ids).logits)


@torch.no_grad()
def test_grouped_heads_equal_repeated_heads(either_model):
    """Grouped-query attention is full attention whose key and value matrices repeat."""
    grouped = either_model(depth=4, num_key_value_heads=1)
    full = either_model(depth=4)
    weights = grouped.state_dict()
    for name in weights:
        if "k_proj" in name or "v_proj" in name or "value_gate" in name:
            weights[name] = weights[name].repeat(2, 1)
        elif "value_embedding" in name:
            weights[name] = weights[name].repeat(1, 2)
    full.load_state_dict(weights)
    ids = torch.randint(V, (2, SEQ))
    for attention in ATTENTION[:2]:
        grouped.set_attn_implementation(attention)
        assert_close(grouped(ids).logits, full(ids).logits)


@torch.no_grad()
def test_inputs_embeds(either_model):
    model = either_model()
    ids = torch.randint(V, (2, SEQ))
    embeds = model.get_input_embeddings()(ids)
    if has_value_embeddings(model):
        with pytest.raises(ValueError, match="value embeddings"):
            model(inputs_embeds=embeds)
        return
    assert_close(model(inputs_embeds=embeds).logits, model(ids).logits)
    with pytest.raises(ValueError, match="exactly one"):
        model(input_ids=ids, inputs_embeds=embeds)
    with pytest.raises(ValueError, match="exactly one"):
        model()


@torch.no_grad()
def test_logits_to_keep(either_model):
    model = either_model()
    ids = torch.randint(V, (2, SEQ))
    full = model(ids).logits
    assert_close(model(ids, logits_to_keep=3).logits, full[:, -3:])
    assert_close(model(ids, logits_to_keep=torch.tensor([0, 5, -1])).logits, full[:, [0, 5, -1]])
    per_row = torch.tensor([[1, 2], [8, 4]])
    assert_close(model(ids, logits_to_keep=per_row).logits, torch.stack([full[0, [1, 2]], full[1, [8, 4]]]))
    chosen = torch.rand(ids.shape) < 0.5
    assert_close(model(ids, logits_to_keep=chosen).logits, full[chosen])


@torch.no_grad()
def test_hidden_states_and_attentions(either_model):
    model = either_model(depth=3, attn_implementation="eager")
    ids = torch.randint(V, (2, SEQ))
    output = model(ids, output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in output.hidden_states] == [(2, SEQ, 192)] * 4
    assert_close(model.model(ids).last_hidden_state, output.hidden_states[-1])
    assert [tuple(a.shape) for a in output.attentions] == [(2, 2, SEQ, SEQ)] * 3
    for attentions in output.attentions:
        assert_close(attentions.sum(-1), torch.ones(2, 2, SEQ))
        assert not attentions.triu(1).any()
    cap = model.config.final_logit_softcapping
    assert_close(cap * torch.tanh(model.lm_head(output.hidden_states[-1]) / cap), output.logits)
    as_tuple = model(ids, use_cache=False, return_dict=False)
    assert_close(as_tuple[0], output.logits)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(either_model, reentrant):
    model = either_model(depth=3).train()
    ids = torch.randint(V, (2, SEQ))
    expected = model(ids, labels=ids).loss
    expected.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    loss = model(ids, labels=ids).loss
    assert_close(loss, expected)
    loss.backward()
    for p, grad in zip(model.parameters(), grads, strict=True):
        assert_close(p.grad, grad)


@pytest.mark.slow
def test_compiled_as_one_graph(either_model):
    """fullgraph: any graph break raises. aot_eager runs the captured graphs, backward included, without a C++ build."""
    model = either_model()
    ids = torch.randint(V, (2, SEQ))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    a, b = (m(input_ids=ids, labels=ids, use_cache=False).loss for m in (model, compiled))
    assert_close(a, b)
    for x, y in zip(*(torch.autograd.grad(loss, list(model.parameters())) for loss in (a, b)), strict=True):
        assert_close(x, y)
    packed = torch.arange(SEQ).remainder(8).expand(2, -1)
    with torch.no_grad():
        assert_close(
            compiled(input_ids=ids, position_ids=packed, use_cache=False).logits,
            model(input_ids=ids, position_ids=packed, use_cache=False).logits,
        )


@torch.no_grad()
def test_bf16(either_model, tmp_path):
    model = either_model()
    model.save_pretrained(tmp_path)
    ids = torch.randint(V, (2, SEQ))
    expected = model(ids).logits
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    cast = copy.deepcopy(model).to(torch.bfloat16)
    assert loaded.dtype == cast.dtype == torch.bfloat16
    assert torch.equal(loaded(ids).logits, cast(ids).logits)
    assert loaded(ids).logits.dtype == torch.bfloat16
    rough = (loaded(ids).logits.float() - expected).abs().mean() / expected.abs().mean()
    assert rough < 0.03


@pytest.mark.parametrize("attention", ATTENTION, indirect=True)
@torch.no_grad()
def test_autocast(either_model, attention):
    """Under mixed precision the cache is bf16, and close to the same answer comes out."""
    model = either_model(attn_implementation=attention)
    ids = torch.randint(V, (2, SEQ))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(ids, labels=ids)
    layer = output.past_key_values.layers[0]
    assert layer.keys.dtype == layer.values.dtype == torch.bfloat16
    assert output.loss.item() == pytest.approx(model(ids, labels=ids).loss.item(), rel=0.02)


# ---------------------------------------------------------------- changing and saving it


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("mean_resizing", [False, True])
@torch.no_grad()
def test_resize_token_embeddings(either_model, tmp_path, tied, mean_resizing):
    model = either_model(tie_word_embeddings=tied)
    ids = torch.randint(V, (2, SEQ))
    before = model(ids).logits
    model.resize_token_embeddings(V + 8, mean_resizing=mean_resizing)
    assert model.config.vocab_size == V + 8
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert_close(model(ids).logits[..., :V], before)
    assert math.isfinite(model(ids + 8, labels=ids + 8).loss)
    model.save_pretrained(tmp_path)
    assert_close(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, model(ids).logits)


@torch.no_grad()
def test_sharded_save(either_model, tmp_path):
    model = either_model(depth=3)
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    for name, weight in AutoModelForCausalLM.from_pretrained(tmp_path).state_dict().items():
        assert torch.equal(weight, model.get_parameter(name))


def test_lora_on_all_linear_layers(either_model, tmp_path):
    model = either_model()
    ids = torch.randint(V, (2, SEQ))
    model.save_pretrained(tmp_path / "base")
    torch.manual_seed(5)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    adapted = {name.partition(".lora_A")[0].rpartition(".")[2] for name, _ in tuned.named_modules() if "lora_A" in name}
    gate = {"value_gate"} if has_value_embeddings(model) else set()
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"} | gate  # block matrices, not the head

    tuned(input_ids=ids, labels=ids).loss.backward()
    trained = {name for name, p in tuned.named_parameters() if p.grad is not None}
    assert trained
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.1)
        expected = tuned(input_ids=ids).logits
        assert (expected - AutoModelForCausalLM.from_pretrained(tmp_path / "base")(ids).logits).abs().max() > 0.01
        tuned.save_pretrained(tmp_path / "adapter")
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().save_pretrained(tmp_path / "merged")
        assert_close(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits, expected)
    assert (tmp_path / "merged" / "modeling_nanohf.py").exists()
