"""pass@k on the way: measured at its steps, and after a restart only what is not known."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from nanohf.train.grpo.pass_at_k_callback import PassAtK


class TestPassAtK:
    @pytest.fixture
    def passes(self, tmp_path):
        """A measurement that gives its own number, and the folder that a killed run left: steps 0, 4 and half of 8."""
        measured = []

        def measure() -> dict:
            measured.append(1)
            return {"example": "e", "samples": [{"text": f"text {len(measured)}", "right": True}]}

        def again(main: bool = True) -> PassAtK:
            progress = SimpleNamespace(paused=nullcontext)
            return PassAtK(measure, 4, lambda result: "shown", progress, tmp_path, main)

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
        assert all("samples" not in result for result in resumed.figures())

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
