"""TRL's GRPOTrainer with our settings computes nanochat's loss, and our rollout function keeps its contract."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from nanohf.data.word_problems import prompt_ids
from nanohf.generation.engine import Engine
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.train.grpo.trainer import PassAtK, ProblemTrainer, correct_answer, rollout_func
from nanohf.train.lora import merged, with_lora
from nanohf.train.phase_timer import Clock

ALONE = SimpleNamespace(process_index=0, autocast=nullcontext)
QUESTIONS = ["Mia has 3 plums and 4 pears. How many are that?", "What is 2 times 8?", "How many legs have 5 dogs?"]


def settings(tmp_path, **changes) -> GRPOConfig:
    return GRPOConfig(
        **{
            "output_dir": str(tmp_path),
            "use_cpu": True,
            "bf16": False,
            "activation_checkpointing": False,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "max_completion_length": 16,
            "beta": 0.0,
            "scale_rewards": "none",
            "loss_type": "bnpo",
            "max_grad_norm": 0.0,
            "max_steps": 1,
            "seed": 5,
        }
        | changes
    )


def test_one_step_is_nanochats_policy_gradient(model, tokenizer, tmp_path):
    """Against ten lines: -sum(logp * (reward - group mean)) / number of chosen tokens; forced tokens are left out."""
    torch.manual_seed(1)
    end = tokenizer.eos_token_id
    completions = [[*torch.randint(20, 500, (n,)).tolist(), end] for n in (3, 7, 5, 9, 2, 6, 8, 4)]
    chosen = [[1] * len(c) for c in completions]
    for row, mask in enumerate(chosen):
        mask[1] = row % 2  # every other completion holds a forced token
    rewards = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    seen = {}

    def canned(prompts, trainer):
        ids = [prompt_ids(tokenizer, p) for p in prompts]
        seen["prompts"] = ids
        return {"prompt_ids": ids, "completion_ids": completions, "env_mask": chosen, "logprobs": None}

    reference = {k: v.clone().requires_grad_() for k, v in model.state_dict().items()}
    trainer = GRPOTrainer(
        model=model,
        args=settings(tmp_path, learning_rate=1.0, lr_scheduler_type="constant"),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": q}]} for q in QUESTIONS]),
        processing_class=tokenizer,
        reward_funcs=lambda completion_ids, **_: [rewards[completions.index(ids)] for ids in completion_ids],
        rollout_func=canned,
        optimizers=(torch.optim.SGD(model.parameters(), lr=1.0), None),
    )
    trainer.train()

    loss = 0.0
    for i, (prompt, completion) in enumerate(zip(seen["prompts"], completions, strict=True)):
        group = rewards[i // 4 * 4 : i // 4 * 4 + 4]
        ids = torch.tensor([prompt + completion])
        logits = torch.func.functional_call(model, reference, (ids,)).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]
        loss = loss - (logp * torch.tensor(chosen[i])).sum() * (rewards[i] - sum(group) / 4)
    loss = loss / sum(map(sum, chosen))
    names = [n for n, _ in model.named_parameters()]
    for name, grad in zip(names, torch.autograd.grad(loss, [reference[n] for n in names]), strict=True):
        moved = reference[name].detach() - model.state_dict()[name]
        torch.testing.assert_close(moved, grad, rtol=1e-3, atol=2e-6)


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


@pytest.mark.parametrize(("said", "reward"), [("#### 7", 1.0), ("so #### 7.0", 1.0), ("7", 0.0), ("#### 71", 0.0)])
def test_the_reward_reads_the_final_number(tokenizer, said, reward):
    ids = tokenizer.encode(said + "<|assistant_end|>", add_special_tokens=False)
    assert correct_answer(tokenizer)([ids], answer=["3 + 4 = <<3+4=7>>7\n#### 7"], prompts=None) == [reward]


def test_a_tool_call_beside_a_number_does_not_run_into_it(tokenizer):
    """With special tokens stripped, `#### ` `3*4` `12` would read `#### 3*412`."""
    ids = tokenizer.encode(
        "<|python_start|>3*4<|python_end|><|output_start|>12<|output_end|>12\n#### 12<|assistant_end|>",
        add_special_tokens=False,
    )
    assert correct_answer(tokenizer)([ids], answer=["#### 12"]) == [1.0]


def test_what_is_logged_of_a_steps_groups(model, tokenizer, tmp_path):
    """Four groups of four: one all wrong, one all right, two mixed; 16 completions with 6 calls, 3 of them refused."""
    rewards = [0.0] * 4 + [1.0] * 4 + [0.0, 1.0, 0.0, 0.0] + [1.0, 1.0, 1.0, 0.0]
    end = tokenizer.eos_token_id

    def canned(prompts, trainer):
        ids = [prompt_ids(tokenizer, p) for p in prompts]
        completions = [[20 + i, end] if i % 4 else [20 + i, 21] for i in range(16)]  # every fourth is cut off
        calls = {"calls": [1, 0, 2, 0] * 2 + [0] * 8, "refused": [1, 0, 0, 0] + [0, 0, 2, 0] + [0] * 8}
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None, **calls}

    trainer = ProblemTrainer(
        model=model,
        args=settings(tmp_path, per_device_train_batch_size=16, logging_steps=1),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": q}]} for q in "abcd"]),
        processing_class=tokenizer,
        reward_funcs=lambda completion_ids, **_: rewards,
        rollout_func=canned,
    )
    trainer.train()
    (log,) = [r for r in trainer.state.log_history if "reward" in r]
    assert (log["groups/all_wrong"], log["groups/all_right"], log["reward"]) == (0.25, 0.25, 0.5)
    assert (log["calculator/calls"], log["calculator/refused"]) == (6 / 16, 3 / 16)
    assert log["completions/clipped_ratio"] == 0.25
    assert log["entropy"] > 0
    assert trainer.order.rates == [[0.0, 1.0, 0.25, 0.75]]
    phases = {k.removeprefix("seconds/") for k in log if k.startswith("seconds/")}
    assert phases == {"generation", "reward", "forward", "backward", "optimizer", "other"}


def test_phases_inside_one_another_add_up_to_the_whole(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nanohf.train.phase_timer.time.perf_counter", lambda: now[0])
    clock = Clock(torch.device("cpu"))
    state = SimpleNamespace(global_step=5)

    def work(seconds: float) -> None:
        now[0] += seconds

    work(100)  # loading
    clock.on_train_begin(None, state, None)
    for _ in range(2):
        with clock.phase("backward"):
            work(1)
            with clock.phase("generation"):
                work(10)
            work(2)
        clock.on_pre_optimizer_step(None, state, None)
        work(0.5)
        clock.on_optimizer_step(None, state, None)
        work(0.25)
    assert clock.seconds == {"backward": 6, "generation": 20, "optimizer": 1, "other": 0.25}
    assert clock.lap(7) == {f"seconds/{k}": v / 2 for k, v in (clock.seconds | {"other": 0.5}).items()}
    clock.phase("evaluation")(work)(4)
    assert clock.lap(8)["seconds/evaluation"] == 4
    assert clock.steps == 2


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


class TestPassAtK:
    @pytest.fixture
    def passes(self, tmp_path):
        """A measurement that gives its own number, and the folder that a killed run left: steps 0, 4 and half of 8."""
        measured = []

        def measure() -> dict:
            measured.append(1)
            return {"example": "e", "samples": [{"text": f"text {len(measured)}", "right": True}]}

        def again(main: bool = True) -> PassAtK:
            progress = SimpleNamespace(paused=nullcontext)
            return PassAtK(measure, 4, lambda result: "shown", progress, tmp_path, main)

        return again, measured, tmp_path

    def test_a_resumed_run_measures_again_only_what_came_after_its_checkpoint(self, passes):
        again, measured, folder = passes
        killed = again()
        for step in (0, 4, 8):
            killed.now(step)
        resumed = again()
        resumed.now(0)
        assert len(measured) == 3
        resumed.on_train_begin(None, SimpleNamespace(global_step=6), None)
        assert list(resumed.curve) == [0, 4]
        resumed.now(8)
        assert len(measured) == 4
        assert [r["step"] for r in json.loads((folder / "pass_at_k.json").read_text())] == [0, 4, 8]
        samples = (folder / "samples.md").read_text()
        assert [line for line in samples.splitlines() if line.startswith("text")] == ["text 1", "text 2", "text 4"]
        assert all("samples" not in result for result in resumed.figures())

    def test_it_measures_every_so_many_steps_but_not_the_last(self, passes):
        again, *_ = passes
        callback = again()
        for step in range(1, 13):
            callback.on_step_end(None, SimpleNamespace(global_step=step, max_steps=12), None)
        assert list(callback.curve) == [4, 8]

    def test_other_processes_write_nothing(self, passes):
        again, measured, folder = passes
        again(main=False).now(0)
        assert measured
        assert not list(folder.iterdir())
