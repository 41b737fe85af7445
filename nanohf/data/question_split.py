"""Which questions are trained on and which are kept apart, by a rule that every stage can apply by itself.

With `held_out: 0.2` in a line of a recipe the questions of the first fifth, by `place`, are kept out of training: of a
mixture as of GRPO's word problems. They are what an eval_mixture and `nanohf evaluate` measure there.

A question's place is a hash of its text with the numbers masked, so that a question and its copies with other numbers
are on the same side, in whatever file, split or order they come.
"""

import hashlib
import re

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def place(question: str) -> float:
    """From 0 to below 1, evenly. Case and spaces do not count, nor do the numbers.

    >>> place("Tom has 3 plums.") == place("Tom has  1,250 plums.")
    True
    """
    masked = " ".join(NUMBER.sub("0", question.lower()).split())
    return int.from_bytes(hashlib.sha256(masked.encode(errors="surrogatepass")).digest()[:6], "big") / 2**48


def wrong_share(held_out: float | None) -> str | None:
    """What is wrong with a `held_out`."""
    if held_out is None or 0 < held_out < 1:
        return None
    return f"held_out={held_out} must be between 0 and 1: 0.2 keeps a fifth of the questions apart"
