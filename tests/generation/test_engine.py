"""The engine against `model.generate`, against exact distributions, and with a scripted model for the calculator."""

from itertools import chain

import pytest
import torch
from torch import nn
from transformers import MistralConfig, MistralForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from nanohf.errors import RecipeError
from nanohf.generation.engine import Engine, _sample, _uniforms, complete
from nanohf.generation.packed_linears import packed_linears
from nanohf.generation.shared_prompt_cache import SharedPromptCache
from nanohf.model import NanoHFConfig, NanoHFForCausalLM


@pytest.fixture
def prompts(tokenizer):
    texts = ["Mia has 3 apples.", "There are 12 boys and 7 girls in the old school near the river. How many", "Go"]
    return [tokenizer.encode(text) for text in texts]


def test_greedy_equals_generate_token_for_token(model, tokenizer, prompts):
    groups = Engine(model, tokenizer, calculator=False).generate(prompts, max_new_tokens=24, temperature=0)
    for prompt, (completion,) in zip(prompts, groups, strict=True):
        want = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()
        assert completion.ids == want


def test_a_text_is_completed_greedily(model, tokenizer):
    ids = tokenizer("Mia has", return_tensors="pt").input_ids
    said = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert complete(model, tokenizer, "Mia has", max_new_tokens=8) == "Mia has" + tokenizer.decode(said)


def test_the_cache_gives_what_a_full_forward_gives(model, tokenizer, prompts):
    """Each sampled token is the one that its row's uniforms choose from a full forward over all tokens before it."""
    groups = Engine(model, tokenizer).generate(prompts, 3, max_new_tokens=16, top_k=5, seed=7)
    for p, group in enumerate(groups):
        for s, completion in enumerate(group):
            uniforms = _uniforms(7, p * 3 + s, 16)
            for i, token in enumerate(completion.ids):
                if completion.sampled_mask[i]:
                    logits = model(torch.tensor([prompts[p] + completion.ids[:i]])).logits[:, -1]
                    assert _sample(logits, uniforms[i : i + 1], 1.0, 5).item() == token


def mistral(tokenizer, window: int | None) -> MistralForCausalLM:
    """transformers' Mistral with grouped key/value heads."""
    torch.manual_seed(0)
    shape = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": window}
    model = MistralForCausalLM(MistralConfig(eos_token_id=None, **shape, **heads)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2)
    return model


def everything(tokenizer, window: int) -> NanoHFForCausalLM:
    """Ours with all that a config can add; only the last of its layers sees beyond the window."""
    torch.manual_seed(0)
    added = {"preset": "modern", "backout": True, "query_key_scale": 1.2, "final_logit_softcapping": None}
    types = ["sliding_attention", "sliding_attention", "full_attention"]
    config = NanoHFConfig.from_depth(3, len(tokenizer), layer_types=types, sliding_window=window, **added)
    model = NanoHFForCausalLM(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2)
    return model


@pytest.mark.parametrize("make", [mistral, everything])
@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(slice(3), id="prompts of several lengths"),
        pytest.param(slice(1, 2), id="one prompt"),
    ],
)
@torch.no_grad()
def test_windows_give_the_logits_of_a_full_forward(tokenizer, prompts, make, chosen):
    """A window shorter than prompts and completions. Greedy tokens may agree where logits do not."""
    model, prompts = make(tokenizer, 6), prompts[chosen]
    engine, seen = Engine(model, tokenizer, calculator=False), []
    engine.stops, forward = set(), engine._forward
    engine._forward = lambda *args: seen.append(forward(*args)) or seen[-1]
    for row, completion in enumerate(chain(*engine.generate(prompts, 2, max_new_tokens=12, seed=4))):
        prompt = prompts[row // 2]
        expected = model(torch.tensor([prompt + completion.ids])).logits[0, len(prompt) - 1 : -1]
        found = torch.stack([seen[0][row // 2], *(logits[row] for logits in seen[1:])])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("window", [None, 6])
def test_other_models_and_windows(tokenizer, prompts, window):
    """A window shorter than prompts and completions."""
    model = mistral(tokenizer, window)
    groups = Engine(model, tokenizer, calculator=False).generate(prompts, 2, max_new_tokens=24, temperature=0)
    for prompt, group in zip(prompts, groups, strict=True):
        want = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()
        assert len(set(want)) > 8
        for completion in group:
            assert completion.ids == want[: len(completion.ids)]  # the engine's stop tokens end it
            assert completion.finished or completion.ids == want


def test_rows_that_leave_do_not_change_the_others(model, tokenizer, prompts):
    """With and without stop tokens, the same uniforms give the same tokens up to each row's end."""
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 3
    engine = Engine(model, tokenizer)
    stopping = list(chain(*engine.generate(prompts, 8, max_new_tokens=60, seed=2)))
    engine.stops = set()
    whole = list(chain(*engine.generate(prompts, 8, max_new_tokens=60, seed=2)))
    for short, long in zip(stopping, whole, strict=True):
        assert short.ids == long.ids[: len(short.ids)]
    ends = [len(c.ids) for c in stopping]
    assert len(set(ends)) > 12  # rows have left one after the other
    assert min(max(ends[i : i + 8]) for i in (0, 8, 16)) < 60  # and a whole prompt


def test_prompts_that_outlive_longer_ones_read_no_padding(model, tokenizer, prompts):
    """Where the prompts that are left have one length, but a longer one was there before."""
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 3
    engine, stops, outlived = Engine(model, tokenizer), {tokenizer.eos_token_id}, 0
    for seed in range(6):
        engine.stops = stops
        stopping = [c for (c,) in engine.generate(prompts[1:], max_new_tokens=40, seed=seed)]
        engine.stops = set()
        whole = [c for (c,) in engine.generate(prompts[1:], max_new_tokens=40, seed=seed)]
        for short, long in zip(stopping, whole, strict=True):
            assert short.ids == long.ids[: len(short.ids)]
        outlived += len(stopping[1].ids) > len(stopping[0].ids)  # the shorter prompt's completion
    assert outlived >= 2


def test_the_live_weights_are_read_and_the_model_is_left_as_it_was(model, tokenizer, prompts):
    engine, implementation = Engine(model, tokenizer, calculator=False), model.config._attn_implementation
    known = set(ALL_ATTENTION_FUNCTIONS.keys())
    engine.generate(prompts, 4, max_new_tokens=2)  # enough rows that the engine packs the weights
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.roll(1, dims=0))
    for prompt, group in zip(prompts, engine.generate(prompts, 4, max_new_tokens=12, temperature=0), strict=True):
        want = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :].tolist()
        assert [c.ids for c in group] == [want] * 4
    with pytest.raises(ZeroDivisionError):
        engine.generate(prompts, 4, on_token=lambda *_: 1 / 0)
    assert model.config._attn_implementation == implementation
    assert set(ALL_ATTENTION_FUNCTIONS.keys()) == known, "what stays there keeps a cache alive"
    assert model.config.final_logit_softcapping == 15
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_rows_tokens_do_not_depend_on_its_neighbours(model, tokenizer, prompts):
    engine = Engine(model, tokenizer)
    alone = engine.generate(prompts[:1], 2, max_new_tokens=20, seed=3)[0]
    among = engine.generate(prompts, 2, max_new_tokens=20, seed=3)[0]
    assert [c.ids for c in alone] == [c.ids for c in among]


def test_sampling_follows_the_top_k_distribution():
    """Chi-square against the exact probabilities, at two temperatures; nothing outside the top k is ever drawn."""
    torch.manual_seed(0)
    logits = torch.randn(1, 200) * 3
    draws = 40_000
    for temperature, k in ((1.0, 10), (0.7, 50)):
        tokens = _sample(logits.expand(draws, -1), torch.rand(draws), temperature, k)
        values, ids = logits[0].topk(k)
        expected = (values / temperature).softmax(-1) * draws
        observed = torch.stack([(tokens == i).sum() for i in ids])
        assert observed.sum() == draws
        common = expected > 5
        chi2 = ((observed - expected)[common] ** 2 / expected[common]).sum()
        freedom = common.sum() - 1
        assert chi2 < freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations of a chi-square variable


def test_sampling_at_the_ends_of_the_uniforms():
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    assert _sample(logits, torch.tensor([0.0]), 1.0, 3).item() == 2
    assert _sample(logits, torch.tensor([1.0 - 1e-7]), 1.0, 3).item() == 0


def test_seeds_of_any_size():
    assert not torch.equal(_uniforms(10**18, 0, 8), _uniforms(10**18, 1, 8))


def test_rows_of_neighbouring_seeds_are_different():
    assert not torch.equal(_uniforms(0, 1, 8), _uniforms(1, 0, 8))


def test_top_k_of_0_is_no_top_k():
    logits, uniforms = torch.randn(64, 30), torch.rand(64)
    assert torch.equal(_sample(logits, uniforms, 1.0, 0), _sample(logits, uniforms, 1.0, 30))


def test_rows_stop_at_the_end_token_and_only_there(model, tokenizer, prompts):
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 3  # make the end token likely
    completions = [
        c for group in Engine(model, tokenizer).generate(prompts, 8, max_new_tokens=40, seed=1) for c in group
    ]
    assert any(c.finished for c in completions)
    for c in completions:
        assert c.finished == (c.ids[-1] in (tokenizer.eos_token_id, tokenizer.bos_token_id))
        assert not {tokenizer.eos_token_id, tokenizer.bos_token_id} & set(c.ids[:-1])
        assert c.finished or len(c.ids) == 40


def test_completions_end_where_the_context_does(model, tokenizer, prompts):
    """Each row fills the model's positions, however long its prompt is, and says what it would have until there."""
    engine = Engine(model, tokenizer)
    engine.stops = set()
    whole = list(chain(*engine.generate(prompts, 3, max_new_tokens=40, seed=2)))
    lengths = [len(prompt) for prompt in prompts for _ in range(3)]
    model.config.max_position_embeddings = context = max(lengths) + 1
    short = list(chain(*engine.generate(prompts, 3, max_new_tokens=40, seed=2)))
    assert [len(c.ids) for c in short] == [min(40, context - length) for length in lengths]
    assert [c.ids for c in short] == [c.ids[: len(s.ids)] for c, s in zip(whole, short, strict=True)]
    assert not any(c.finished for c in short)


def test_an_end_token_at_the_last_position_is_an_end(model, tokenizer, prompts):
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 3
    engine, prompt = Engine(model, tokenizer), prompts[0]
    group = engine.generate([prompt], 8, max_new_tokens=40, seed=1)[0]
    last = max((c for c in group if c.finished), key=lambda c: len(c.ids))
    row, length = group.index(last), len(last.ids)
    assert length > 1
    for limit, finished in ((length, True), (length - 1, False)):
        model.config.max_position_embeddings = len(prompt) + limit
        again = engine.generate([prompt], 8, max_new_tokens=40, seed=1)[0][row]
        assert (again.ids, again.finished) == (last.ids[:limit], finished)


@pytest.mark.parametrize(("length", "count"), [(0, 0), (64, 64), (70, 70)])
def test_prompts_that_leave_no_room_are_refused(model, tokenizer, length, count):
    model.config.max_position_embeddings = 64
    with pytest.raises(RecipeError, match=f"prompt 1 has {count} tokens; .* fewer than the model's 64 positions"):
        Engine(model, tokenizer).generate([[5], [5] * length])


def test_without_a_scaling_attention_scales_by_the_head_size(model):
    query, key, value = torch.randn(3, 1, 4, 5, 16).unbind()
    cache = SharedPromptCache(2, [5], 1, query.device)
    found, _ = cache.attend(model.model.layers[0].self_attn, query, key, value, None)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(found, expected.transpose(1, 2))


class Scripted(torch.nn.Module):
    """A model that says a fixed text whatever it reads, so that a calculator call can be watched."""

    def __init__(self, model, script: list[int], start: int):
        super().__init__()
        self.config, self.script, self.start = model.config, script, start
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.read = []

    def forward(self, input_ids, position_ids, past_key_values, **_):
        from transformers.modeling_outputs import CausalLMOutputWithPast

        self.read.append(input_ids[0].tolist())
        for layer in past_key_values.layers:
            layer.update(*torch.zeros(2, len(input_ids), 1, input_ids.shape[1], 2))
        place = min(position_ids[0, -1].item() - self.start, len(self.script) - 1)
        logits = torch.zeros(len(input_ids), 1, self.config.vocab_size)
        logits[..., self.script[place]] = 100
        return CausalLMOutputWithPast(logits=logits)


def say(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    ("expression", "result"), [("12*34", "408"), ("7/2", "3.5"), ("1/0", None), ("import os", None)]
)
def test_the_calculators_output_is_forced_and_marked(model, tokenizer, expression, result):
    prompt = say(tokenizer, "So")
    call = say(tokenizer, f" it is <|python_start|>{expression}<|python_end|>")
    output = say(tokenizer, f"<|output_start|>{result}<|output_end|>") if result else []
    end = say(tokenizer, " done<|assistant_end|>")
    noise = say(tokenizer, "x" * len(output))[:1] * len(output)  # what the model would have said meanwhile
    scripted = Scripted(model, call + noise + end, len(prompt) - 1)
    told = []
    ((completion,),) = Engine(scripted, tokenizer).generate(
        [prompt], max_new_tokens=60, on_token=lambda *token: told.append(token)
    )
    assert told == [
        (0, token, bool(sampled)) for token, sampled in zip(completion.ids, completion.sampled_mask, strict=True)
    ]
    assert completion.ids == call + output + end
    assert completion.sampled_mask == [1] * len(call) + [0] * len(output) + [1] * len(end)
    assert (completion.calls, completion.refused) == (1, int(result is None))
    assert list(chain(*scripted.read)) == prompt + completion.ids[:-1]  # the model has read the forced tokens


def test_each_call_is_answered_for_itself(model, tokenizer):
    prompt, script, expected = say(tokenizer, "So"), [], []
    for expression, result in (("1+2", "3"), ("10*4", "40")):
        call = say(tokenizer, f"<|python_start|>{expression}<|python_end|>")
        output = say(tokenizer, f"<|output_start|>{result}<|output_end|>")
        script += call + call[:1] * len(output)
        expected += call + output
    end = say(tokenizer, "<|assistant_end|>")
    ((completion,),) = Engine(Scripted(model, script + end, len(prompt) - 1), tokenizer).generate([prompt])
    assert completion.ids == expected + end
    assert (completion.calls, completion.refused) == (2, 0)


def test_without_the_calculator_the_model_writes_the_output_itself(model, tokenizer):
    prompt = say(tokenizer, "So")
    script = say(tokenizer, "<|python_start|>1+2<|python_end|><|output_start|>7<|output_end|><|assistant_end|>")
    engine = Engine(Scripted(model, script, len(prompt) - 1), tokenizer, calculator=False)
    ((completion,),) = engine.generate([prompt])
    assert completion.ids == script
    assert completion.sampled_mask == [1] * len(script)
    assert completion.calls == 0


class OtherLinear(nn.Linear):
    pass


@pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")),
    reason="weights are packed on x86 CPUs only",
)
def test_what_is_packed():
    model = nn.ModuleDict({name: nn.Linear(256, 256) for name in ("large", "unbiased", "bf16", "hooked")})
    model.update({"small": nn.Linear(256, 255), "other": OtherLinear(256, 256)})
    model["unbiased"].bias = None
    model["bf16"].bfloat16()
    model["hooked"].forward = hook = lambda x: x

    def packed(rows: int) -> set[str]:
        with packed_linears(model, rows):
            return {name for name, module in model.items() if "forward" in vars(module)} - {"hooked"}

    assert packed(rows=8) == {"large", "unbiased"}
    assert packed(rows=7) == set()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert packed(rows=8) == set()
    x = torch.randn(8, 256)
    plain = [model[name](x) for name in ("large", "unbiased")]
    with packed_linears(model, 8):
        assert model["hooked"].forward is hook
        for name, expected in zip(("large", "unbiased"), plain, strict=True):
            torch.testing.assert_close(model[name](x), expected, rtol=0, atol=1e-5)
    assert packed(rows=0) == set()
    assert model["hooked"].forward is hook


def test_training_mode_is_put_back(model, tokenizer, prompts):
    model.train()
    Engine(model, tokenizer).generate(prompts, max_new_tokens=2)
    assert model.training
    assert all(layer.training for layer in model.model.layers)
