"""Which problems GRPO draws when: shuffled, and if wanted without most of those that teach nothing any more."""

import random
from collections.abc import Iterator
from itertools import chain, count, islice

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from nanohf.errors import RecipeError


class ProblemOrder(Sampler, TrainerCallback, ExportableState):
    """Problems in the order that GRPOTrainer wants: each `samples` times in a row, a generation's `repeats` times over.

    The order follows from the seed and from the pass rates of the groups so far, which travel in the checkpoint's
    trainer_state.json: a resumed run draws what an uninterrupted one would have drawn, in later epochs too.

    Args:
        problems: how many there are; a generation takes `size` of them, different ones.
        shuffle: or in the source's order, again and again.
        skip_settled: chance to pass over a problem whose last group was all right or all wrong. Its advantages were 0,
            and are likely to be so again. From 0, off, to below 1.
        ahead: generations that are drawn before the rewards of the one before them are known.
    """

    def __init__(
        self,
        problems: int,
        size: int,
        samples: int,
        repeats: int,
        seed: int,
        shuffle: bool = True,
        skip_settled: float = 0.0,
        ahead: int = 1,
    ):
        if problems < size:
            raise RecipeError(
                f"{problems} problems are fewer than the {size} of one generation. Give more, or take fewer at a time: "
                "per_device_train_batch_size x processes x gradient_accumulation_steps / num_generations."
            )
        self.problems, self.size, self.samples, self.repeats, self.seed = problems, size, samples, repeats, seed
        self.shuffle, self.skip_settled, self.ahead = shuffle, skip_settled, ahead
        self.epoch = 0
        self.rates: list[list[float]] = []  # of every generation so far, one a group

    def generations(self) -> Iterator[list[int]]:
        """The problems of generation 0, 1, 2, ... without end."""
        generator, dice = torch.Generator().manual_seed(self.seed), random.Random(self.seed)

        def once() -> list[int]:
            n = self.problems
            return torch.randperm(n, generator=generator).tolist() if self.shuffle else list(range(n))

        candidates = chain.from_iterable(once() for _ in count())
        drawn: list[list[int]] = []
        last: dict[int, float] = {}
        for number in count():
            if self.skip_settled and (known := number - 1 - self.ahead) >= 0:
                last.update(zip(drawn[known], self.rates[known], strict=True))
            chosen: list[int] = []
            while len(chosen) < self.size:
                problem = next(candidates)
                settled = last.get(problem) in (0, 1)
                if problem not in chosen and not (settled and dice.random() < self.skip_settled):
                    chosen.append(problem)
            drawn.append(chosen)
            yield chosen

    def __iter__(self) -> Iterator[int]:
        for chosen in islice(self.generations(), self.epoch * self.an_epoch, (self.epoch + 1) * self.an_epoch):
            for _ in range(self.repeats):
                for problem in chosen:
                    yield from [problem] * self.samples

    def __len__(self) -> int:
        return self.an_epoch * self.repeats * self.size * self.samples

    @property
    def an_epoch(self) -> int:
        """Generations of an epoch: as many as there are whole ones in the problems."""
        return self.problems // self.size

    def on_train_begin(self, args, state, control, **kwargs):
        saved = state.stateful_callbacks.get(type(self).__name__)
        self.rates = saved["attributes"]["rates"] if saved else []

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epoch = int(state.epoch or 0)

    def state(self) -> dict:
        return {"args": {}, "attributes": {"rates": self.rates}}
