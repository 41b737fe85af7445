"""TRL's GRPOTrainer with our settings computes nanochat's loss, and our rollout function keeps its contract."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from nanohf.data.problems import prompt_ids
from nanohf.rollout.engine import Engine
from nanohf.train.grpo import correct_answer, rollout_func

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
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=3), accelerator=SimpleNamespace(process_index=0))
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
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=0), accelerator=SimpleNamespace(process_index=0))
    prompts = [[{"role": "user", "content": QUESTIONS[i]}] for i in (0, 0, 1, 2, 2, 2)]
    result = rollout_func(Engine(model, tokenizer), args)(prompts, trainer)
    assert result["prompt_ids"] == [prompt_ids(tokenizer, p) for p in prompts]


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
