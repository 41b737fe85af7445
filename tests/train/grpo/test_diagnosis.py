"""The warning names the cause that the logs show, once a window, and is silent while the reward rises."""

import re
from types import SimpleNamespace

import pytest

from nanohf.train.grpo.diagnosis import Diagnosis, fallen, likely_cause, too_little_spread


def logs(first: float, last: float, wrong: float = 0.3, right: float = 0.2, cut: float = 0.0, count: int = 40):
    rewards = [first + (last - first) * i / (count - 1) for i in range(count)]
    return [
        {
            "step": i,
            "reward": reward,
            "groups/all_wrong": wrong,
            "groups/all_right": right,
            "completions/clipped_ratio": cut,
            "entropy": 0.4,
        }
        for i, reward in enumerate(rewards, 1)
    ]


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (logs(0.01, 0.01, wrong=0.95, right=0.0), "95% of the groups all are wrong: the model cannot do the task yet"),
        (logs(0.97, 0.97, wrong=0.0, right=0.9), "90% of the groups all are right: the word problems are too easy"),
        (logs(0.0, 0.0, wrong=1.0, right=0.0, cut=0.9), "90% of the completions are cut off: raise max_completion_len"),
        (logs(0.5, 0.5, wrong=0.45, right=0.45), "90% of the groups all are right or all wrong (entropy 0.40)"),
        (logs(0.5, 0.1), "falls by 0.21: the learning rate is likely too large"),
    ],
)
def test_cause(history, words):
    assert words in likely_cause(history)


@pytest.mark.parametrize(
    "history",
    [logs(0.4, 0.5), logs(0.01, 0.06, wrong=0.9, right=0.0), logs(0.5, 0.5)],
    ids=["rises", "begins", "mixed"],
)
def test_no_cause(history):
    assert likely_cause(history) is None


def halves(gain: float = 0.0, **shares) -> list[dict]:
    """Rewards of 0.5 and, from the middle on, of 0.5 + gain."""
    history = logs(0.5, 0.5, **shares)
    return [log | {"reward": 0.5 + gain * (i >= 20)} for i, log in enumerate(history)]


@pytest.mark.parametrize(
    ("below", "above"),
    [
        (halves(cut=0.5), halves(cut=0.51)),
        (halves(wrong=0.8, right=0.0), halves(wrong=0.81, right=0.0)),
        (halves(wrong=0.0, right=0.8), halves(wrong=0.0, right=0.81)),
        (halves(wrong=0.4, right=0.4), halves(wrong=0.41, right=0.4)),
        (halves(0.0105, cut=0.9), halves(0.0095, cut=0.9)),
        (halves(-0.095), halves(-0.105)),
    ],
    ids=["cut off", "all wrong", "all right", "no spread", "rises", "falls"],
)
def test_thresholds(below, above):
    assert likely_cause(below) is None
    assert likely_cause(above)


def told(history: list[dict], logging_steps: int, capsys) -> list[str]:
    diagnosis = Diagnosis()
    for i, log in enumerate(history, 1):
        state = SimpleNamespace(log_history=history[:i], global_step=log["step"])
        diagnosis.on_log(SimpleNamespace(logging_steps=logging_steps), state, None, logs=log)
    return capsys.readouterr().err.splitlines()


def test_it_waits_for_a_window_and_warns_of_it_once(capsys):
    lines = told(logs(0.0, 0.0, wrong=1.0, right=0.0, count=99), 1, capsys)
    assert len(lines) == 2
    assert lines[0].startswith("warning: reward 0.000 on average, not rising since step 1.")
    assert "since step 41." in lines[1]


def test_a_window_of_rare_logs(capsys):
    history = [log | {"step": log["step"] * 10} for log in logs(0.0, 0.0, wrong=1.0, count=9)]
    assert len(told(history, 10, capsys)) == 1
    assert not told(history[:7], 10, capsys)
    assert len(told(history[:8], 10, capsys)) == 1


def tried(right: float, wrong: float, finished: float = 1.0) -> dict:
    return {"always_right": right, "always_wrong": wrong, "finished": finished, "n": 64, "num_samples": 16}


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (tried(0.0, 0.96), "only 4% of 64 groups of 16 completions .* wrong in 96%, right in 0%. The model cannot do"),
        (tried(0.97, 0.0), "The word problems are too easy"),
        (tried(0.0, 1.0, finished=0.1), "90% of the completions are cut off"),
    ],
)
def test_too_little_spread(result, words):
    assert re.search(words, too_little_spread(result))


def test_enough_spread():
    assert too_little_spread(tried(0.55, 0.4)) is None


def measured(step: int, right: list[int], pass_at_1: float) -> dict:
    return {"step": step, "pass@1": pass_at_1, "sources": {"a": {"right": right, "num_samples": 8}}}


def test_falling_pass_at_k_beyond_chance():
    before = measured(0, [1] * 60 + [0] * 40, 0.1)
    sharper = measured(40, [8] * 45 + [0] * 55, 0.36)
    said = fallen(before, sharper)
    assert "pass@8 fell by 15.0 points since step 0" in said
    assert "-22.0 to -8.0" in said  # 0.15 +- 1.96 sqrt(0.15 x 0.85 / 99)
    assert "gives most often" in said
    assert "So did pass@1" in fallen(before, measured(40, [1] * 45 + [0] * 55, 0.05))


def test_pass_at_k_within_chance():
    before = measured(0, [1] * 60 + [0] * 40, 0.1)
    assert fallen(before, before) is None
    assert fallen(before, measured(40, [1] * 50 + [0] * 20 + [1] * 7 + [0] * 23, 0.1)) is None  # 10 lost, 7 won
    assert fallen(before, measured(40, [1] * 90 + [0] * 10, 0.1)) is None


def test_collapsed_entropy_is_said_once(capsys):
    history = [log | {"entropy": 0.5 if i < 40 else 0.09} for i, log in enumerate(logs(0.3, 0.9, count=120))]
    (line,) = told(history, 1, capsys)
    assert "entropy fell from 0.500 to 0.0" in line
    assert not told([log | {"entropy": 0.2} for log in logs(0.3, 0.9, count=120)], 1, capsys)
