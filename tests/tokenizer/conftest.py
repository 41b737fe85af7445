"""A small tokenizer for the tests of this folder."""

import random

import pytest

from nanohf.tokenizer.train_bpe import train_tokenizer


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    rng = random.Random(0)
    words = [" ".join("".join(rng.choices("aeioulnrst", k=rng.randint(2, 7))) for _ in range(400)) for _ in range(20)]
    return [f"{text}. In 1984 it's 12,345 € or ½.\n\n" for text in words] + ["<|bos|> and <|python_start|>"]


@pytest.fixture(scope="module")
def tok(corpus):
    return train_tokenizer(corpus, 512)
