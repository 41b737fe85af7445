"""pass@k on the way: measured every so many steps, and kept beside the checkpoints with the best step's weights."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback

from nanohf import console
from nanohf.evals.pass_at_k import shown, without_details
from nanohf.runs.stage_record import write_json
from nanohf.tokenizer.render import fenced, readable
from nanohf.train.grpo.best_weights import BestWeights
from nanohf.train.grpo.diagnosis import fallen


class PassAtK(TrainerCallback):
    """Measures every `every` steps; `measure()` gives {source: what `nanohf.evals.pass_at_k.score` gives}.

    Results are in `curve` by step, and in files beside the checkpoints, so that a resumed run has those from before:
    pass_at_k.json, and samples.md to read. The weights of the best step are kept until there is a better one.
    main: this process writes all that.
    """

    def __init__(
        self, measure: Callable[[], dict], every: int, progress, folder: Path, weights: BestWeights, main: bool
    ):
        self.measure, self.every, self.progress, self.folder = measure, every, progress, folder
        self.weights, self.main = weights, main
        self.said_fallen = False
        known = folder / "pass_at_k.json"
        results = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else []
        self.curve: dict[int, dict] = {result["step"]: result for result in results}

    def now(self, step: int) -> dict:
        """The result at this step, measured unless it is known."""
        if step not in self.curve:
            started = time.perf_counter()
            with self.progress.paused():
                self.curve[step] = over_sources(self.measure()) | {"step": step}
            self.curve[step]["seconds"] = time.perf_counter() - started
            if self.main:
                if self.best_kept is None or self.pass_at_1(step) > self.pass_at_1(self.best_kept):
                    self.weights.keep(step)
                write_json(self.folder / "pass_at_k.json", list(self.curve.values()))
                self.write_samples(self.folder)
            self._warn_if_fallen(step)
        first = next(iter(self.curve[step]["sources"].values()))
        console.progress(f"step {step:,} | {described(self.curve[step])}\n{readable(first['example'])}")
        return self.curve[step]

    def pass_at_1(self, step: int) -> float:
        return self.curve[step]["pass@1"]

    @property
    def best_kept(self) -> int | None:
        """The best measured step, the earlier of equal ones, among those whose weights are there. Of `main` only."""
        kept = [step for step in self.weights.steps() if step in self.curve]
        return max(kept, key=lambda step: (self.pass_at_1(step), -step), default=None)

    def _warn_if_fallen(self, step: int) -> None:
        if not self.said_fallen and 0 in self.curve and (said := fallen(self.curve[0], self.curve[step])):
            console.warning(f"step {step:,}: {said}")
            self.said_fallen = True

    def figures(self) -> list[dict]:
        """The curve without what is said of single problems."""
        return [for_record(result) for result in self.curve.values()]

    def write_samples(self, folder: Path) -> None:
        """samples.md: the same few problems at every evaluation."""
        parts = []
        for result in self.curve.values():
            parts.append(f"## Step {result['step']:,}: {described(result)}\n")
            for sample in (sample for of in result["sources"].values() for sample in of["samples"]):
                parts.append(f"{'Right' if sample['right'] else 'Wrong'}:\n\n{fenced(readable(sample['text']))}\n")
        (folder / "samples.md").write_text("\n".join(parts), encoding="utf-8")

    def on_train_begin(self, args, state, control, **kwargs):
        """What a killed run measured after its last checkpoint is measured again."""
        self.curve = {step: result for step, result in self.curve.items() if step <= state.global_step}
        if self.main:
            self.weights.drop(step for step in self.weights.steps() if step > state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            self.now(state.global_step)

    def on_save(self, args, state, control, **kwargs):
        """A resumed run begins here: what was better until now is all that it can need."""
        if self.main:
            self.weights.drop(step for step in self.weights.steps() if step != self.best_kept)


def over_sources(measured: dict[str, dict]) -> dict:
    """pass@1 is the mean over the sources, each counting the same however many word problems it has."""
    return {"pass@1": sum(of["pass@1"][0] for of in measured.values()) / len(measured), "sources": measured}


def for_record(result: dict) -> dict:
    return result | {"sources": {name: without_details(of) for name, of in result["sources"].items()}}


def described(result: dict) -> str:
    """For a progress line: each source by name, if there are several."""
    sources = result["sources"]
    if len(sources) == 1:
        return shown(*sources.values())
    return "; ".join(f"{name}: {shown(of)}" for name, of in sources.items())
