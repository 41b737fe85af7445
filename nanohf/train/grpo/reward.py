"""The reward of a completion: 1 if its final number is right, else 0."""

from collections.abc import Callable

from nanohf.data.gsm8k import is_correct


def reward(completion: str, answer: str) -> float:
    """1.0 if the first number after `####` is the same in both texts, else 0.0.

    A pure function of two texts. Only the final number counts, however it is spelled and whatever comes before it. A
    completion that was cut off is read like any other: 0.0, unless it had already given its final number.

    >>> answer = "3 boxes of 4 are <<3*4=12>>12 plums.\\n#### 12"
    >>> reward("3 and 4 are 12, I guess.\\n#### 12.0", answer)
    1.0
    >>> reward("3*4 = 12 plums", answer)  # no final number
    0.0
    >>> reward("#### 13", answer)
    0.0
    """
    return float(is_correct(completion, answer))


def reward_func(tokenizer) -> Callable:
    """`reward` as GRPOTrainer calls it, for a list of completions and the dataset's column `answer`.

    It decodes the ids itself: TRL's text lacks special tokens, so that a result runs into the number before it.
    """

    def correct_answer(completion_ids: list[list[int]], answer: list[str], **_) -> list[float]:
        return [reward(tokenizer.decode(ids), right) for ids, right in zip(completion_ids, answer, strict=True)]

    return correct_answer
