"""pass@k against counting, its intervals against simulation, and the scoring against answers written by hand."""

import itertools
import random
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from nanohf.evals.pass_at_k import mean_interval, pass_at_k, score, shown, without_details


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_counts_draws(samples):
    for correct, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        draws = list(itertools.combinations([True] * correct + [False] * (samples - correct), k))
        assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


def test_pass_at_1_is_the_share_of_right_samples():
    assert [pass_at_k(8, c, 1) for c in range(9)] == pytest.approx([c / 8 for c in range(9)])


def coverage(draw, truth: float, n: int, trials: int = 1500) -> float:
    """How often the interval of n drawn values holds the truth."""
    hits = 0
    for _ in range(trials):
        mean, low, high = mean_interval([draw() for _ in range(n)])
        assert 0 <= low <= mean <= high <= 1
        hits += low <= truth <= high
    return hits / trials


@pytest.mark.parametrize("n", [50, 400])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.93])
def test_interval_covers_shares(p, n):
    rng = random.Random(f"{p} {n}")
    assert 0.925 <= coverage(lambda: float(rng.random() < p), p, n) <= 0.985


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.9), (2, 2), (0.2, 4), (5, 1)])
def test_interval_covers_means_of_pass_rates(alpha, beta):
    """Each problem has its own difficulty and 8 samples: values are eighths."""
    rng = random.Random(f"{alpha} {beta}")

    def problem() -> float:
        p = rng.betavariate(alpha, beta)
        return sum(rng.random() < p for _ in range(8)) / 8

    assert 0.925 <= coverage(problem, alpha / (alpha + beta), 200, trials=700) <= 0.985


def test_interval_of_binary_values_is_wilsons():
    """40 of 400; Wilson's closed form at z = 1.96 gives [0.07428, 0.13331]."""
    mean, low, high = mean_interval([1.0] * 40 + [0.0] * 360)
    assert (mean, low, high) == pytest.approx((0.1, 0.07428, 0.13331), abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 400])
def test_interval_is_never_a_point(n):
    mean, low, high = mean_interval([0.0] * n)
    assert mean == low == 0
    assert high == pytest.approx(1.96**2 / (n + 1.96**2))
    assert mean_interval([1.0] * n) == (1.0, pytest.approx(1 - high), 1.0)
    assert mean_interval([0.5] * n)[1] < 0.5 < mean_interval([0.5] * n)[2]


def test_samples_of_one_problem_are_no_independent_evidence():
    """Eight samples that agree say no more than one."""
    agreeing = mean_interval([1.0] * 20 + [0.0] * 30)
    spread = mean_interval([0.4] * 49 + [0.6])
    assert spread[2] - spread[1] < agreeing[2] - agreeing[1]


@dataclass
class Written:
    """What a rollout's completion carries, as far as the score reads it."""

    ids: list[int]
    finished: bool = True
    calls: int = 0
    refused: int = 0


@dataclass
class Script:
    """Generates what is written for each prompt and remembers how it was asked."""

    answers: dict[int, list[Written]]
    asked: list[tuple] = field(default_factory=list)

    def generate(self, prompts, num_samples, **options):
        self.asked.append((len(prompts), num_samples, options))
        return [self.answers[prompt[0]][:num_samples] for prompt in prompts]


def decode(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def written(text: str, **facts) -> Written:
    return Written(list(map(ord, text)), **facts)


def test_score():
    right, wrong = "so #### 7", "so #### 8"
    script = Script(
        {
            1: [written(right), written(right, calls=2, refused=1)],
            2: [written(wrong), written("#### 7.0")],
            3: [written(wrong), written("#### ", finished=False)],
        }
    )
    result = score(
        script.generate, decode, [[1], [2], [3]], ["#### 7"] * 3, num_samples=2, batch_size=2, seed=5, top_k=9
    )
    assert result["n"] == 3
    assert result["pass@1"][0] == pytest.approx((1 + 0.5 + 0) / 3)
    assert result["pass@2"][0] == pytest.approx(2 / 3)
    assert result["pass@1"] == list(mean_interval([1.0, 0.5, 0.0]))
    assert result["finished"] == pytest.approx(5 / 6)
    assert (result["always_right"], result["always_wrong"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert result["calculator_calls"] == pytest.approx(2 / 6)
    assert result["calculator_refused"] == 0.5
    assert result["right"] == [2, 1, 0]
    assert without_details(result).keys() == result.keys() - {"right", "samples"}
    assert result["example"] == "\x01" + right
    said = [(sample["text"], sample["right"]) for sample in result["samples"]]
    assert said == [("\x01" + right, True), ("\x02" + wrong, False), ("\x03" + wrong, False)]
    assert [asked[:2] for asked in script.asked] == [(2, 2), (1, 2)]
    seeds = [options.pop("seed") for *_, options in script.asked]
    assert len(set(seeds)) == 2, "batches must not draw the same numbers"
    assert all(options == {"top_k": 9} for *_, options in script.asked)
    assert shown(result).startswith("pass@1 50.0% [")
    assert shown(result).endswith("n = 3")
    assert "pass@2 66.7%" in shown(result)


def test_score_of_one_sample():
    result = score(Script({1: [written("#### 7")]}).generate, decode, [[1]], ["#### 7"], 1, 1)
    assert result["pass@1"][0] == 1.0
    assert shown(result).count("pass@1") == 1


def test_processes_share_the_batches(monkeypatch):
    """One after the other, with what they counted in one list. tests/train/test_grpo_stage.py has two real ones."""
    answers = {i: [written(f"#### {i % 3}", calls=i), written("#### 7")] for i in range(1, 6)}
    problems = (decode, [[i] for i in range(1, 6)], ["#### 1"] * 5, 2, 2)
    alone, scripts, counted = Script(answers), [Script(answers), Script(answers)], []
    monkeypatch.setattr("nanohf.evals.pass_at_k.gather_object", lambda counts: counted.extend(counts) or counted)
    for rank in (1, 0):
        processes = SimpleNamespace(process_index=rank, num_processes=2)
        result = score(scripts[rank].generate, *problems, processes=processes)
    assert result == score(alone.generate, *problems)
    assert scripts[0].asked + scripts[1].asked == [alone.asked[0], alone.asked[2], alone.asked[1]]
