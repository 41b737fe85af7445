"""Checks of the grpo stage: the reward tells right from wrong, and groups of samples differ in it."""

from itertools import zip_longest

from datasets import Dataset

from nanohf.data.gsm8k import final_answer
from nanohf.data.word_problems import problems, prompt_ids
from nanohf.doctor.check_result import Result
from nanohf.generation.engine import Engine
from nanohf.train.grpo.reward import reward_func

PROBLEMS = 8
GROUPS = 4
COMPLETION = 128  # tokens at most: a look, not a measurement


def few(stage) -> Dataset:
    """The first problems of each of the recipe's sources, in turn."""
    of_sources = [problems(source, "train", PROBLEMS, stage.validation)[0] for source in stage.ladder]
    return Dataset.from_list([row for rows in zip_longest(*of_sources) for row in rows if row])


def reward_tells(tokenizer, rows, sampled: bool) -> Result:
    """The dataset's own answers must earn 1, a wrong number 0."""
    reward, answers = reward_func(tokenizer), rows["answer"]
    wrong = [f"#### {wrong_number(answer)}" for answer in answers]
    of_right, of_wrong = (
        reward(completion_ids=[tokenizer.encode(t, add_special_tokens=False) for t in texts], answer=answers)
        for texts in (answers, wrong)
    )
    figure = f"right answers {mean(of_right):.2f}, wrong ones {mean(of_wrong):.2f}, {len(answers)} each"
    if len({*of_right, *of_wrong}) == 1:
        why = "the reward is constant, so every advantage is 0 and nothing is learned; fix the reward or the answers"
        return Result("fail", "grpo", "reward", figure, why)
    if min(of_right) < 1 or max(of_wrong) > 0:
        why = "right must earn 1 and wrong 0: see that answers end in '#### number' and survive the tokenizer"
        return Result("fail", "grpo", "reward", figure, why)
    return Result(
        "ok", "grpo", "reward", figure, "" if sampled else "sampled groups are looked at once sft is finished"
    )


def wrong_number(answer: str) -> str:
    right = final_answer(answer)
    assert right is not None  # rows without a number are left out
    return str(int(float(right)) + 1)


def spread(tokenizer, model, rows, args) -> Result:
    """The share of sampled groups that hold both right and wrong answers: only those teach."""
    prompts = [prompt_ids(tokenizer, row["prompt"]) for row in rows.select(range(min(GROUPS, len(rows))))]
    groups = Engine(model, tokenizer).generate(
        prompts,
        args.num_generations,
        min(COMPLETION, args.max_completion_length),
        args.temperature,
        args.top_k,
        seed=args.seed,
    )
    reward = reward_func(tokenizer)
    rewards = [
        reward(completion_ids=[c.ids for c in group], answer=[row["answer"]] * len(group))
        for group, row in zip(groups, rows, strict=False)
    ]
    differ = sum(len(set(group)) > 1 for group in rewards)
    every = [r for group in rewards for r in group]
    figure = f"{differ} of {len(rewards)} groups of {args.num_generations}, mean reward {mean(every):.2f}"
    if not differ:
        why = "no group had both right and wrong answers; more sft, easier problems or more num_generations give some"
        return Result("warn", "grpo", "groups with spread", figure, why)
    return Result("ok", "grpo", "groups with spread", figure)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
