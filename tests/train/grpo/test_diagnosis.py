"""The warning names the cause that the logs show, once a window, and is silent while the reward rises."""

from types import SimpleNamespace

import pytest

from nanohf.train.grpo.diagnosis import Diagnosis, likely_cause


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
