"""What the trainer logs of a step: its groups, its completions, its phases."""

from datasets import Dataset
from loss_case import settings

from nanohf.data.word_problems import prompt_ids
from nanohf.train.grpo.trainer import WordProblemTrainer


def test_what_is_logged_of_a_steps_groups(model, tokenizer, tmp_path):
    """Four groups of four: one all wrong, one all right, two mixed; 16 completions with 6 calls, 3 of them refused."""
    rewards = [0.0] * 4 + [1.0] * 4 + [0.0, 1.0, 0.0, 0.0] + [1.0, 1.0, 1.0, 0.0]
    ends = [tokenizer.eos_token_id, tokenizer.bos_token_id]

    def canned(prompts, trainer):
        ids = [prompt_ids(tokenizer, p) for p in prompts]
        completions = [[20 + i, ends[i % 2]] if i % 4 else [20 + i, 21] for i in range(16)]  # every fourth is cut off
        calls = {"calls": [1, 0, 2, 0] * 2 + [0] * 8, "refused": [1, 0, 0, 0] + [0, 0, 2, 0] + [0] * 8}
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None, **calls}

    trainer = WordProblemTrainer(
        model=model,
        args=settings(tmp_path, num_generations=4, per_device_train_batch_size=16, logging_steps=1),
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
