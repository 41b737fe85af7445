"""Which word problems GRPO draws when: shuffled, and if wanted without most of those that teach nothing any more."""

import random
from collections.abc import Iterator
from itertools import chain, count, islice

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from nanohf.errors import RecipeError


class WordProblemOrder(Sampler, TrainerCallback, ExportableState):
    """The order that GRPOTrainer wants: a word problem `num_generations` times in a row, a generation `repeats` times.

    The order follows from the seed and from the pass rates of the groups so far, which travel in the checkpoint's
    trainer_state.json: a resumed run draws what an uninterrupted one would have drawn, in later epochs too.

    Args:
        word_problems: how many there are; a generation takes `per_generation` of them, different ones.
        repeats: micro-batches that one generation serves.
        shuffle: or in the source's order, again and again.
        skip_settled: chance to pass over a word problem whose last group was all right or all wrong. Its advantages
            were 0, and are likely to be so again. From 0, off, to below 1.
        ahead: generations that are drawn before the rewards of the one before them are known.
    """

    def __init__(
        self,
        word_problems: int,
        per_generation: int,
        num_generations: int,
        repeats: int,
        seed: int,
        shuffle: bool = True,
        skip_settled: float = 0.0,
        ahead: int = 1,
    ):
        if word_problems < per_generation:
            raise RecipeError(
                f"{word_problems} word problems are fewer than the {per_generation} of one generation. Give more, or "
                "lower problems_per_step, and generation_batch_size where it is set."
            )
        self.word_problems, self.per_generation, self.num_generations = word_problems, per_generation, num_generations
        self.repeats, self.seed, self.shuffle = repeats, seed, shuffle
        self.skip_settled, self.ahead = skip_settled, ahead
        self.epoch = 0
        self.rates: list[list[float]] = []  # pass rates of the groups of every generation so far

    def generations(self) -> Iterator[list[int]]:
        """The word problems of generation 0, 1, 2, ... without end."""
        shuffler, skipper = torch.Generator().manual_seed(self.seed), random.Random(self.seed)

        def once() -> list[int]:
            n = self.word_problems
            return torch.randperm(n, generator=shuffler).tolist() if self.shuffle else list(range(n))

        candidates = chain.from_iterable(once() for _ in count())
        drawn: list[list[int]] = []
        last: dict[int, float] = {}
        for number in count():
            if self.skip_settled and (known := number - 1 - self.ahead) >= 0:
                last.update(zip(drawn[known], self.rates[known], strict=True))
            generation: list[int] = []
            while len(generation) < self.per_generation:
                candidate = next(candidates)
                settled = last.get(candidate) in (0, 1)
                if candidate not in generation and not (settled and skipper.random() < self.skip_settled):
                    generation.append(candidate)
            drawn.append(generation)
            yield generation

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.generations_per_epoch
        for generation in islice(self.generations(), first, first + self.generations_per_epoch):
            for _ in range(self.repeats):
                for word_problem in generation:
                    yield from [word_problem] * self.num_generations

    def __len__(self) -> int:
        return self.generations_per_epoch * self.repeats * self.per_generation * self.num_generations

    @property
    def generations_per_epoch(self) -> int:
        """As many as there are whole ones in the word problems."""
        return self.word_problems // self.per_generation

    def on_train_begin(self, args, state, control, **kwargs):
        saved = state.stateful_callbacks.get(type(self).__name__)
        self.rates = saved["attributes"]["rates"] if saved else []

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epoch = int(state.epoch or 0)

    def state(self) -> dict:
        return {"args": {}, "attributes": {"rates": self.rates}}
