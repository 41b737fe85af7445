"""The reward reads the final number of what was said."""

import doctest

import pytest

from nanohf.train.grpo import loss_weights
from nanohf.train.grpo import reward as module
from nanohf.train.grpo.reward import reward_func


@pytest.mark.parametrize("file", [module, loss_weights], ids=["reward", "loss_weights"])
def test_the_docstrings_examples(file):
    result = doctest.testmod(file)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize(("said", "reward"), [("#### 7", 1.0), ("so #### 7.0", 1.0), ("7", 0.0), ("#### 71", 0.0)])
def test_the_reward_reads_the_final_number(tokenizer, said, reward):
    ids = tokenizer.encode(said + "<|assistant_end|>", add_special_tokens=False)
    assert reward_func(tokenizer)([ids], answer=["3 + 4 = <<3+4=7>>7\n#### 7"], prompts=None) == [reward]


def test_a_tool_call_beside_a_number_does_not_run_into_it(tokenizer):
    """With special tokens stripped, `#### ` `3*4` `12` would read `#### 3*412`."""
    ids = tokenizer.encode(
        "<|python_start|>3*4<|python_end|><|output_start|>12<|output_end|>12\n#### 12<|assistant_end|>",
        add_special_tokens=False,
    )
    assert reward_func(tokenizer)([ids], answer=["#### 12"]) == [1.0]


@pytest.mark.parametrize(("said", "reward"), [("#### 7\nThat is", 1.0), ("3 + 4 = 7 and", 0.0), ("", 0.0)])
def test_a_completion_that_was_cut_off_is_read_like_any_other(tokenizer, said, reward):
    ids = tokenizer.encode(said, add_special_tokens=False)
    assert reward_func(tokenizer)([ids], answer=["#### 7"]) == [reward]
