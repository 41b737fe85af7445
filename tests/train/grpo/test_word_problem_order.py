"""Which problems GRPO draws: TRL's order at first, every one in turn, exact on resume, and fewer that are settled."""

from collections import Counter
from itertools import islice
from types import SimpleNamespace

import pytest
from trl.trainer.utils import RepeatSampler

from nanohf.errors import RecipeError
from nanohf.train.grpo.word_problem_order import WordProblemOrder


def drawn(order: WordProblemOrder, generations: int, rate=lambda problem, number: 0.5) -> list[list[int]]:
    """The problems of so many generations, whose pass rates become known as in training: one later."""
    problems = []
    for number, generation in enumerate(islice(order.generations(), generations)):
        problems.append(generation)
        if number >= order.ahead:
            order.rates.append([rate(p, number) for p in problems[number - order.ahead]])
    return problems


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_first_epoch_is_trls(shuffle):
    order = WordProblemOrder([23], per_generation=4, num_generations=3, repeats=2, seed=7, shuffle=shuffle)
    trls = RepeatSampler(range(23), mini_repeat_count=3, batch_size=4, repeat_count=2, seed=7, shuffle=shuffle)
    assert list(order) == list(trls)
    assert len(order) == len(trls) == 5 * 4 * 3 * 2


def test_too_few_problems():
    with pytest.raises(RecipeError, match="3 word problems are fewer than the 4"):
        WordProblemOrder([3], 4, 1, 1, seed=3)
    assert sorted(WordProblemOrder([4], 4, 1, 1, seed=3)) == [0, 1, 2, 3]


def test_no_problem_comes_again_before_all_have_come():
    problems = [p for generation in drawn(WordProblemOrder([24], 4, 1, 1, seed=3), 18) for p in generation]
    assert all(sorted(problems[i : i + 24]) == list(range(24)) for i in (0, 24, 48))
    assert problems[:24] != problems[24:48]


def test_every_epoch_continues_where_the_last_one_ended():
    order = WordProblemOrder([10], 4, 1, 1, seed=3)
    epochs = []
    for epoch in range(3):
        order.on_epoch_begin(None, SimpleNamespace(epoch=float(epoch)), None)
        epochs += list(order)
    assert epochs == [p for generation in islice(order.generations(), 6) for p in generation]


@pytest.mark.parametrize("ahead", [1, 2])
def test_a_resumed_order_continues_as_it_would_have(ahead):
    def rate(problem: int, number: int) -> float:
        return (problem * 7 + number) % 3 / 2  # 0, 1/2 or 1, and not always the same for one problem

    whole = WordProblemOrder([20], 4, 1, 1, seed=1, skip_settled=0.6, ahead=ahead)
    problems = drawn(whole, 40, rate)
    resumed = WordProblemOrder([20], 4, 1, 1, seed=1, skip_settled=0.6, ahead=ahead)
    saved = {"WordProblemOrder": {"args": {}, "attributes": {"rates": whole.rates[:23]}}}
    resumed.on_train_begin(None, SimpleNamespace(stateful_callbacks=saved), None)
    assert list(islice(resumed.generations(), 24)) == problems[:24]


def test_settled_problems_come_less_often_and_the_others_more():
    order = WordProblemOrder([40], 4, 1, 1, seed=5, skip_settled=0.75)
    counts = Counter(
        p for generation in drawn(order, 2000, lambda p, _: [0.0, 0.5, 1.0, 0.5][p % 4]) for p in generation
    )
    settled = sum(counts[p] for p in range(40) if p % 2 == 0)
    assert settled / 8000 == pytest.approx(0.25 / 1.25, abs=0.02)  # drawn a quarter as often as the other half
    assert all(len(set(generation)) == 4 for generation in islice(order.generations(), 100))


def test_what_is_settled_may_become_open_again():
    """A problem is judged by its last group only."""
    order = WordProblemOrder([8], 2, 1, 1, seed=5, skip_settled=0.9)
    problems = drawn(order, 400, lambda p, number: 1.0 if number < 20 else 0.5)
    assert Counter(p for generation in problems[-80:] for p in generation).keys() == set(range(8))


def test_a_source_that_teaches_is_drawn_more():
    """Pass rates 1/2, 0, 1/10: p (1 - p) of 0.25, 0 and 0.09; a quarter of the draws is shared evenly."""
    order = WordProblemOrder([100, 100, 100], 8, 1, 1, seed=1)
    problems = drawn(order, 1000, lambda p, _: (0.5, 0.0, 0.1)[p // 100])
    counts = Counter(order.source_of[p] for generation in problems[20:] for p in generation)
    expected = [0.25 / 3 + 0.75 * v / 0.34 for v in (0.25, 0.0, 0.09)]
    assert [counts[i] / counts.total() for i in range(3)] == pytest.approx(expected, abs=0.01)
    assert Counter(order.source_of[p] for p in problems[0]) in (
        {0: 3, 1: 3, 2: 2},
        {0: 3, 1: 2, 2: 3},
        {0: 2, 1: 3, 2: 3},
    )
    groups = [sum(order.source_of[p] == i for generation in problems[:999] for p in generation) for i in range(3)]
    assert order.by_source() == [(groups[0], 0.5), (groups[1], 0.0), (groups[2], pytest.approx(0.1))]


def test_a_source_is_drawn_by_what_it_teaches_lately():
    order = WordProblemOrder([50, 50], 4, 1, 1, seed=1)
    problems = drawn(order, 400, lambda p, number: 0.5 if (p < 50) == (number < 200) else 1.0)
    shares = [sum(p < 50 for g in problems[at : at + 100] for p in g) / 400 for at in (100, 300)]
    assert shares == pytest.approx([0.875, 0.125], abs=0.02)


def test_a_small_source_gives_no_more_than_it_has():
    order = WordProblemOrder([3, 40], 8, 1, 1, seed=1)
    problems = drawn(order, 100, lambda p, _: 0.5 if p < 3 else 0.0)
    assert all(len(set(generation)) == 8 for generation in problems)
    assert all({0, 1, 2} < set(generation) for generation in problems[10:])


def test_several_sources_resume_as_they_would_have_been():
    def rate(problem: int, number: int) -> float:
        return (problem * 7 + number) % 3 / 2

    whole = WordProblemOrder([20, 9, 30], 4, 1, 1, seed=1, skip_settled=0.5)
    problems = drawn(whole, 60, rate)
    resumed = WordProblemOrder([20, 9, 30], 4, 1, 1, seed=1, skip_settled=0.5)
    resumed.rates = whole.rates[:40]
    assert list(islice(resumed.generations(), 41)) == problems[:41]
