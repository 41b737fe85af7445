"""What lm-eval scores, the reward gives: the same completions, special tokens and all, through both."""

import pytest

from nanohf.data.sources import builtin_examples
from nanohf.evals.lm_eval_model import find_tasks, run_tasks
from nanohf.generation.engine import Completion
from nanohf.train.grpo.reward import reward_func

SAID = [  # right is the word problem's own answer, a whole number; head its first digit and tail the others
    ("#### {right}<|assistant_end|>", 1.0),
    ("#### {right}.0", 1.0),
    (
        "so <|python_start|>1+1<|python_end|><|output_start|>2<|output_end|>2\n#### {right} of them<|assistant_end|>",
        1.0,
    ),
    ("#### {right}/2<|assistant_end|>", 0.0),
    ("#### {right} 1/2<|assistant_end|>", 0.0),
    ("#### {head}<|python_start|>{tail}<|python_end|><|assistant_end|>", 0.0),  # without special tokens: head + tail
    ("#### <|python_start|>{right}<|python_end|><|assistant_end|>", 0.0),
    ("{right}<|assistant_end|>", 0.0),
    ("", 0.0),
]


@pytest.mark.slow
def test_the_task_scores_what_the_reward_gives(tokenizer, model):
    answers = {row["question"]: row["answer"] for row in builtin_examples("problems", "test", 1000)}
    reward, seen = reward_func(tokenizer), []

    def generate(prompts, max_new_tokens, temperature):
        groups = []
        for prompt in prompts:
            text = tokenizer.decode(prompt)
            answer = next(answer for question, answer in answers.items() if question in text)
            right = answer.rpartition("#### ")[2]
            said, expected = SAID[len(seen) % len(SAID)]
            ids = tokenizer.encode(said.format(right=right, head=right[0], tail=right[1:]), add_special_tokens=False)
            assert reward([ids], answer=[answer]) == [expected]
            seen.append(expected)
            groups.append([Completion(ids[:max_new_tokens])])
        return groups

    task = "nanohf_toy_problems"
    scores = run_tasks(model, tokenizer, generate, [task], find_tasks([task]), 2 * len(SAID), batch_size=4)
    assert len(seen) == 2 * len(SAID) == scores[task]["n"]
    assert scores[task]["value"] == sum(seen) / len(seen)
