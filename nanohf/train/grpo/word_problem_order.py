"""Which word problems GRPO draws when: more from sources that teach, and if wanted few that teach nothing any more."""

import random
from collections import deque
from collections.abc import Iterator
from itertools import accumulate, chain, count, islice
from statistics import fmean

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from nanohf.errors import RecipeError

RECENT = 64  # groups of a source, by which it is judged
FLOOR = 0.25  # of the draws are shared evenly, so that a source that teaches nothing yet is seen when that changes


class WordProblemOrder(Sampler, TrainerCallback, ExportableState):
    """The order that GRPOTrainer wants: a word problem `num_generations` times in a row, a generation `repeats` times.

    Of several sources each has its own shuffled order. They are drawn by the mean of p (1 - p) over their last RECENT
    groups, where p is a group's pass rate: the variance of the rewards, to which GRPO's gradient is proportional.

    The order follows from the seed and from the pass rates of the groups so far, which travel in the checkpoint's
    trainer_state.json: a resumed run draws what an uninterrupted one would have drawn, in later epochs too.

    Args:
        sources: how many word problems each has, which stand one source after another in the dataset; a generation
            takes `per_generation` of them, different ones.
        repeats: micro-batches that one generation serves.
        shuffle: or in the source's order, again and again.
        skip_settled: chance to pass over a word problem whose last group was all right or all wrong. Its advantages
            were 0, and are likely to be so again. From 0, off, to below 1.
        ahead: generations that are drawn before the rewards of the one before them are known.
    """

    def __init__(
        self,
        sources: list[int],
        per_generation: int,
        num_generations: int,
        repeats: int,
        seed: int,
        shuffle: bool = True,
        skip_settled: float = 0.0,
        ahead: int = 1,
    ):
        if (total := sum(sources)) < per_generation:
            raise RecipeError(
                f"{total} word problems are fewer than the {per_generation} of one generation. Give more, or "
                "lower problems_per_step, and generation_batch_size where it is set."
            )
        self.sources, self.per_generation, self.num_generations = sources, per_generation, num_generations
        self.repeats, self.seed, self.shuffle = repeats, seed, shuffle
        self.skip_settled, self.ahead = skip_settled, ahead
        self.epoch = 0
        self.rates: list[list[float]] = []  # pass rates of the groups of every generation so far
        self.source_of = [i for i, size in enumerate(sources) for _ in range(size)]  # of each word problem

    def generations(self) -> Iterator[list[int]]:
        """The word problems of generation 0, 1, 2, ... without end."""
        streams = [self._stream(source) for source in range(len(self.sources))]
        skipper, credit = random.Random(self.seed), [0.0] * len(self.sources)
        drawn: list[list[int]] = []
        last: dict[int, float] = {}
        recent: list[deque[float]] = [deque(maxlen=RECENT) for _ in self.sources]
        for number in count():
            if (known := number - 1 - self.ahead) >= 0 and self.adaptive:
                for problem, rate in zip(drawn[known], self.rates[known], strict=True):
                    last[problem] = rate
                    recent[self.source_of[problem]].append(rate * (1 - rate))
            generation: list[int] = []
            for source in self._drawn_sources(draw_shares(recent), credit):
                for candidate in streams[source]:
                    settled = last.get(candidate) in (0, 1)
                    if candidate not in generation and not (settled and skipper.random() < self.skip_settled):
                        break
                generation.append(candidate)
            drawn.append(generation)
            yield generation

    def _drawn_sources(self, shares: list[float], credit: list[float]) -> Iterator[int]:
        """The source of each word problem of a generation. credit: draws that each is owed, carried on."""
        left = list(self.sources)
        for _ in range(self.per_generation):
            has_more = [source for source, size in enumerate(left) if size]
            total = sum(shares[source] for source in has_more)
            for source in has_more:
                credit[source] += shares[source] / total
            chosen = max(has_more, key=lambda source: credit[source])
            credit[chosen] -= 1
            left[chosen] -= 1
            yield chosen

    @property
    def adaptive(self) -> bool:
        """Whether the order depends on pass rates."""
        return bool(self.skip_settled) or len(self.sources) > 1

    def _stream(self, source: int) -> Iterator[int]:
        """A source's word problems, epoch after epoch."""
        first, size = list(accumulate(self.sources, initial=0))[source], self.sources[source]
        shuffler = torch.Generator().manual_seed(self.seed + source)

        def once() -> list[int]:
            order = torch.randperm(size, generator=shuffler).tolist() if self.shuffle else list(range(size))
            return [first + i for i in order]

        return chain.from_iterable(once() for _ in count())

    def by_source(self) -> list[tuple[int, float | None]]:
        """Of each source: word problems drawn so far, and the mean pass rate of their groups."""
        rates: list[list[float]] = [[] for _ in self.sources]
        for generation, known in zip(self.generations(), self.rates, strict=False):
            for problem, rate in zip(generation, known, strict=True):
                rates[self.source_of[problem]].append(rate)
        return [(len(of), fmean(of) if of else None) for of in rates]

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
        return sum(self.sources) // self.per_generation

    def on_train_begin(self, args, state, control, **kwargs):
        saved = state.stateful_callbacks.get(type(self).__name__)
        self.rates = saved["attributes"]["rates"] if saved else []

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epoch = int(state.epoch or 0)

    def state(self) -> dict:
        return {"args": {}, "attributes": {"rates": self.rates}}


def draw_shares(recent: list[deque[float]]) -> list[float]:
    """The share of the draws of each source. recent: p (1 - p) of its last groups; one without groups counts 1/4.

    >>> draw_shares([deque([0.25, 0.25]), deque([0.0, 0.0])])
    [0.875, 0.125]
    """
    teaching = [fmean(values) if values else 0.25 for values in recent]
    total, even = sum(teaching), 1 / len(recent)
    return [FLOOR * even + (1 - FLOOR) * (value / total if total else even) for value in teaching]
