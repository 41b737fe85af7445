"""pass@k on the way: measured every so many steps, and kept beside the checkpoints."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback

from nanohf import console
from nanohf.runs.stage_record import write_json
from nanohf.tokenizer.render import fenced, readable


class PassAtK(TrainerCallback):
    """Measures every `every` steps; `measure()` gives what `nanohf.evals.pass_at_k.score` gives.

    Results are in `curve` by step, and in files beside the checkpoints, so that a resumed run has those from before:
    pass_at_k.json, and samples.md to read. main: this process writes them.
    """

    def __init__(self, measure: Callable[[], dict], every: int, describe: Callable, progress, folder: Path, main: bool):
        self.measure, self.every, self.describe, self.progress, self.folder = measure, every, describe, progress, folder
        self.main = main
        known = folder / "pass_at_k.json"
        results = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else []
        self.curve: dict[int, dict] = {result["step"]: result for result in results}

    def now(self, step: int) -> dict:
        """The result at this step, measured unless it is known."""
        if step not in self.curve:
            started = time.perf_counter()
            with self.progress.paused():
                self.curve[step] = self.measure() | {"step": step}
            self.curve[step]["seconds"] = time.perf_counter() - started
            if self.main:
                write_json(self.folder / "pass_at_k.json", list(self.curve.values()))
                self.write_samples(self.folder)
        console.progress(f"step {step:,} | {self.describe(self.curve[step])}\n{readable(self.curve[step]['example'])}")
        return self.curve[step]

    def figures(self) -> list[dict]:
        """The curve without the samples."""
        return [{k: v for k, v in result.items() if k != "samples"} for result in self.curve.values()]

    def write_samples(self, folder: Path) -> None:
        """samples.md: the same few problems at every evaluation."""
        parts = []
        for result in self.curve.values():
            parts.append(f"## Step {result['step']:,}: {self.describe(result)}\n")
            for sample in result["samples"]:
                parts.append(f"{'Right' if sample['right'] else 'Wrong'}:\n\n{fenced(readable(sample['text']))}\n")
        (folder / "samples.md").write_text("\n".join(parts), encoding="utf-8")

    def on_train_begin(self, args, state, control, **kwargs):
        """What a killed run measured after its last checkpoint is measured again."""
        self.curve = {step: result for step, result in self.curve.items() if step <= state.global_step}

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            self.now(state.global_step)
