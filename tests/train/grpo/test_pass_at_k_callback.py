"""pass@k on the way: measured at its steps, and after a restart only what is not known."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from nanohf.train.grpo.best_weights import BestWeights
from nanohf.train.grpo.pass_at_k_callback import PassAtK

RATES = [0.2, 0.4, 0.3, 0.4, 0.5]


def scored(rate: float, text: str) -> dict:
    shown = {"n": 4, "num_samples": 1, "pass@1": [rate, 0.0, 1.0], "right": [1, 0, 0, 0], "example": "e"}
    return shown | {"samples": [{"text": text, "right": True}]}


class TestPassAtK:
    @pytest.fixture
    def passes(self, tmp_path):
        """A measurement that gives its own number, and the folder that a killed run left: steps 0, 4 and half of 8."""
        measured = []
        model = torch.nn.Linear(2, 1)

        def measure() -> dict:
            measured.append(1)
            score = RATES[len(measured) - 1 :][:1] or [0.1]
            return {"a": scored(score[0], f"text {len(measured)}")}

        def again(main: bool = True) -> PassAtK:
            progress = SimpleNamespace(paused=nullcontext)
            return PassAtK(measure, 4, progress, tmp_path, BestWeights(model, tmp_path), main)

        return again, measured, tmp_path

    def test_a_resumed_run_measures_again_only_what_came_after_its_checkpoint(self, passes):
        again, measured, folder = passes
        killed = again()
        for step in (0, 4, 8):
            killed.now(step)
        resumed = again()
        resumed.now(0)
        assert len(measured) == 3
        resumed.on_train_begin(None, SimpleNamespace(global_step=6), None)
        assert list(resumed.curve) == [0, 4]
        assert all(0 <= result["seconds"] < 60 for result in resumed.curve.values())
        resumed.now(8)
        assert len(measured) == 4
        assert [r["step"] for r in json.loads((folder / "pass_at_k.json").read_text())] == [0, 4, 8]
        samples = (folder / "samples.md").read_text()
        assert [line for line in samples.splitlines() if line.startswith("text")] == ["text 1", "text 2", "text 4"]
        for result in resumed.figures():
            assert not {"samples", "right"} & result["sources"]["a"].keys()

    def test_a_checkpoint_of_a_measured_step_keeps_its_result(self, passes):
        again, measured, _ = passes
        again().now(4)
        resumed = again()
        resumed.on_train_begin(None, SimpleNamespace(global_step=4), None)
        resumed.now(4)
        assert len(measured) == 1

    def test_it_measures_every_so_many_steps_but_not_the_last(self, passes):
        again, *_ = passes
        callback = again()
        for step in range(1, 13):
            callback.on_step_end(None, SimpleNamespace(global_step=step, max_steps=12), None)
        assert list(callback.curve) == [4, 8]

    def test_other_processes_write_nothing(self, passes):
        again, measured, folder = passes
        again(main=False).now(0)
        assert measured
        assert not list(folder.iterdir())

    def test_the_best_steps_weights_are_kept(self, passes):
        """0.2, 0.4, 0.3, 0.4: step 4, the earlier of two equals; what it beat goes when a checkpoint is there."""
        again, _, _ = passes
        callback = again()
        weight = callback.weights.parameters["weight"]
        for step in (0, 4, 8, 12):
            torch.nn.init.constant_(weight, step)
            callback.now(step)
        assert callback.weights.steps() == [0, 4]
        callback.on_save(None, None, None)
        assert callback.weights.steps() == [4]
        assert callback.weights.restore(callback.best_kept) == 4
        assert weight.tolist() == [[4.0, 4.0]]

    def test_what_was_best_after_the_checkpoint_is_forgotten(self, passes):
        """Killed after step 4, with a checkpoint of step 2: the best is step 0 again, whose weights are still there."""
        again, *_ = passes
        killed = again()
        killed.now(0)
        killed.on_save(None, None, None)
        killed.now(4)
        resumed = again()
        resumed.on_train_begin(None, SimpleNamespace(global_step=2), None)
        assert (resumed.weights.steps(), resumed.best_kept) == ([0], 0)

    def test_without_any_weights_left_the_next_is_kept(self, passes):
        again, _, folder = passes
        again().now(4)
        (folder / "best/4.safetensors").unlink()
        resumed = again()
        resumed.now(8)
        assert resumed.best_kept == 8
