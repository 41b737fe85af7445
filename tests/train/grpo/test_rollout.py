"""Our rollout function keeps TRL's contract, generates as the model trains, and draws the same again on resume."""

import os
from contextlib import nullcontext
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from nanohf.data.word_problems import prompt_ids
from nanohf.generation.engine import Engine
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.train.grpo.rollout import accept_experimental, rollout_func, whole_groups
from nanohf.train.lora import merged, with_lora

ALONE = SimpleNamespace(process_index=0, autocast=nullcontext)
QUESTIONS = ["Mia has 3 plums and 4 pears. How many are that?", "What is 2 times 8?", "How many legs have 5 dogs?"]


def test_rollouts_answer_every_prompt_in_order(model, tokenizer):
    args = SimpleNamespace(seed=1, max_completion_length=8, temperature=1.0, top_k=50)
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=3), accelerator=ALONE)
    prompts = [[{"role": "user", "content": q}] for q in QUESTIONS for _ in range(4)]
    rollout = rollout_func(Engine(model, tokenizer), args)
    first, second = rollout(prompts, trainer), rollout(prompts, trainer)
    assert first["prompt_ids"] == [prompt_ids(tokenizer, p) for p in prompts]
    assert [len(m) for m in first["env_mask"]] == [len(c) for c in first["completion_ids"]]
    assert len({tuple(c) for c in first["completion_ids"]}) > 8  # samples of one prompt differ
    assert first["completion_ids"] != second["completion_ids"]  # as do the generations of one step

    again = rollout_func(Engine(model, tokenizer), args)(prompts, trainer)  # a resumed process, at the same step
    assert again["completion_ids"] == first["completion_ids"]


def test_processes_draw_what_one_would_have_drawn(model, tokenizer):
    """Also where a group is split between them."""
    args = SimpleNamespace(seed=1, max_completion_length=8, temperature=1.0, top_k=50)
    prompts = [[{"role": "user", "content": q}] for q in QUESTIONS for _ in range(4)]

    def said(rank: int, processes: int) -> list[list[int]]:
        accelerator = SimpleNamespace(process_index=rank, autocast=nullcontext)
        mine = prompts[rank * 12 // processes : (rank + 1) * 12 // processes]
        trainer = SimpleNamespace(state=SimpleNamespace(global_step=3), accelerator=accelerator)
        return rollout_func(Engine(model, tokenizer), args)(mine, trainer)["completion_ids"]

    one = said(0, 1)
    assert len({tuple(ids) for ids in one[:4]}) == 4
    for processes in (2, 3, 4):
        assert [ids for rank in range(processes) for ids in said(rank, processes)] == one


def test_no_two_rollouts_share_a_seed():
    """Of any step, generation of a step and recipe's seed. Processes do: their rows are others."""
    seeds = []

    def generate(prompts, samples, *_, seed, first_row):
        seeds.append(seed)
        return []

    engine = SimpleNamespace(generate=generate, tokenizer=None)
    for recipe_seed in range(9):
        rollout = rollout_func(
            engine, SimpleNamespace(seed=recipe_seed, max_completion_length=1, temperature=1, top_k=1)
        )
        for step, _ in product(range(12), range(4)):
            rollout([], SimpleNamespace(state=SimpleNamespace(global_step=step), accelerator=ALONE))
    assert len(set(seeds)) == len(seeds) == 9 * 12 * 4


def test_a_completion_that_fills_the_context_is_cut_off(model, tokenizer):
    """It is trained on like any other, and says so to TRL by not ending in an end token."""
    args = SimpleNamespace(seed=1, max_completion_length=40, temperature=1.0, top_k=50)
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=0), accelerator=ALONE)
    prompts = [[{"role": "user", "content": QUESTIONS[i]}] for i in (0, 1) for _ in range(4)]
    lengths = [len(prompt_ids(tokenizer, prompt)) for prompt in prompts]
    model.config.max_position_embeddings = context = max(lengths) + 3
    result = rollout_func(Engine(model, tokenizer), args)(prompts, trainer)
    ends = {tokenizer.eos_token_id, tokenizer.bos_token_id}
    for length, ids, mask in zip(lengths, result["completion_ids"], result["env_mask"], strict=True):
        assert len(ids) == len(mask) == min(40, context - length) or ids[-1] in ends
    assert {len(ids) for ids in result["completion_ids"][:4]} <= {1, 2, 3}


@pytest.mark.parametrize(
    ("prompts", "groups"),
    [("aaabbb", (["a", "b"], 3)), ("aab", (list("aab"), 1)), ("abab", (list("abab"), 1)), ("aa", (["a"], 2))],
)
def test_whole_groups(prompts, groups):
    assert whole_groups(list(prompts)) == groups


def test_trl_is_told_once(monkeypatch):
    monkeypatch.delenv("TRL_EXPERIMENTAL_SILENCE")
    accept_experimental()
    assert os.environ["TRL_EXPERIMENTAL_SILENCE"] == "1"


def test_prompts_that_are_no_whole_groups(model, tokenizer):
    args = SimpleNamespace(seed=1, max_completion_length=4, temperature=1.0, top_k=50)
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=0), accelerator=ALONE)
    prompts = [[{"role": "user", "content": QUESTIONS[i]}] for i in (0, 0, 1, 2, 2, 2)]
    result = rollout_func(Engine(model, tokenizer), args)(prompts, trainer)
    assert result["prompt_ids"] == [prompt_ids(tokenizer, p) for p in prompts]


def test_rollouts_of_a_trained_model_are_in_the_precision_of_its_training(tokenizer):
    """Matrices large enough to be packed in fp32 by the engine, in a model that the trainer made cast to bf16."""
    model = NanoHFForCausalLM(NanoHFConfig.from_depth(4, len(tokenizer))).requires_grad_(False)
    for p in model.parameters():
        p.normal_(std=0.05)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    prompts = [[{"role": "user", "content": QUESTIONS[0]}]] * 8
    engine, args = Engine(model, tokenizer), SimpleNamespace(seed=1, max_completion_length=8, temperature=1.0, top_k=50)
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=0), accelerator=accelerator)
    before = rollout_func(engine, args)(prompts, trainer)
    accelerator.prepare_model(model)
    after = rollout_func(engine, args)(prompts, trainer)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert after["completion_ids"] == before["completion_ids"]


def test_a_policy_with_adapters_generates_with_them(model, tokenizer):
    lora = {"use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_target_modules": ["all-linear"]}
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": q}]) for q in QUESTIONS]
    without = Engine(model, tokenizer).generate(prompts, max_new_tokens=12, seed=3)
    adapted = with_lora(SimpleNamespace(**lora), model)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    said = Engine(adapted, tokenizer).generate(prompts, max_new_tokens=12, seed=3)
    assert said != without
    assert Engine(merged(adapted), tokenizer).generate(prompts, max_new_tokens=12, seed=3) == said
