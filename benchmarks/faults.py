"""What can go wrong with a run, made to go wrong on purpose: a table of faults and what became of them.

    python benchmarks/faults.py [--kills 30] [--only nan,kill,truncate,full,second,world,data] [--seed 0]

A tiny chain (tests/small_run.py) is run once undisturbed; then every fault is planted in copies of it, in processes of
their own, and the ends are compared by the bytes of the weights. Takes about 15 minutes on two quiet cores, most of
them for the kills. Ends with status 1 if anything was lost, recorded wrong, or said without its cure.
"""

import argparse
import hashlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from small_run import ENVIRONMENT, SMALL  # noqa: E402

STAGES = ("tokenizer", "pretrain", "midtrain", "sft", "grpo")
TRAINED = STAGES[1:]
SETTINGS = SMALL | {
    "pretrain.per_device_train_batch_size": 8,
    "midtrain.batch_tokens": 2048,
    "sft.batch_tokens": 2048,
    "sft.max_steps": 12,
    "grpo.max_steps": 6,
    "grpo.save_steps": 1,
    "grpo.num_generations": 4,
    "grpo.per_device_train_batch_size": 8,
    "grpo.problems_per_step": 4,
    "grpo.max_completion_length": 16,
    "grpo.eval_every": 100,
}
ENVIRON = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
CHECKPOINTS = {stage: "step-*" if stage == "pretrain" else "checkpoint-*" for stage in TRAINED}
TWO = ["-m", "accelerate.commands.launch", "--quiet", "--config_file", str(ROOT / "accelerate_configs/ddp.yaml")]
TWO += ["--num_processes", "2", "--main_process_port", "0"]


class Faults:
    """One method per fault; each says what became of it, and raises AssertionError where that is not right."""

    def __init__(self, work: Path, kills: int):
        self.work, self.kills = work, kills
        status, said = self.run_chain("whole")
        assert status == 0, said
        self.weights = {stage: weights(self.folder("whole"), stage) for stage in TRAINED}

    def folder(self, name: str) -> Path:
        return self.work / "runs" / name

    def until(self, stage: str, name: str) -> Path:
        """A copy of the undisturbed run with the stages before this one."""
        folder = self.folder(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for before in STAGES[: STAGES.index(stage)]:
            shutil.copytree(self.folder("whole") / before, folder / before)
        return folder

    # Processes

    def chain(self, name: str) -> list[str]:
        command = [sys.executable, "-m", "nanohf.cli", "run", str(ROOT / "recipes/demo")]
        command += ["--name", name, "--until", "grpo"]
        return command + [part for k, v in SETTINGS.items() for part in ("--set", f"{k}={v}")]

    def stage(self, stage: str, folder: Path, launcher: tuple[str, ...] = (), **changed) -> list[str]:
        mine = {k.partition(".")[2]: v for k, v in SETTINGS.items() if k.startswith(f"{stage}.")} | changed
        mine |= {"stage": stage} if stage in ("midtrain", "sft") else {}
        module = f"nanohf.stages.{'sft' if stage == 'midtrain' else stage}"
        command = [sys.executable, *(launcher or ()), "-m", module]
        command += ["--config", str(ROOT / f"recipes/demo/{stage}.yaml"), "--run_dir", str(folder)]
        return command + [str(part) for k, v in mine.items() for part in (f"--{k}", v)]

    def run(self, command: list[str], **options) -> tuple[int, str]:
        process = self.start(command, **options)
        said, _ = process.communicate(timeout=900)
        return process.returncode, said

    def start(self, command: list[str], environment: dict | None = None, **options) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=self.work, env=ENVIRON | (environment or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True, **options,
        )  # fmt: skip

    def run_chain(self, name: str) -> tuple[int, str]:
        return self.run(self.chain(name))

    def killed_after(self, command: list[str], folder: Path, stage: str, checkpoints: int, **options) -> list[Path]:
        """Starts it and kills all its processes when so many checkpoints are there: those that are."""
        process = self.start(command, **options)
        while len(found := there(folder, stage)) < checkpoints:
            assert process.poll() is None, f"it ended before it could be killed: {process.communicate()[0]}"
            time.sleep(0.01)
        kill(process)
        return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))

    # Faults

    def nan(self, stage: str) -> str:
        folder = self.until(stage, f"nan-{stage}")
        plant = [sys.executable, __file__, "--plant"]
        command = self.stage(stage, folder)[1:]
        calls = random.randint(3, 8)
        status, said = self.run([*plant, str(calls), str(calls), *command])
        assert status == 0, said
        record = read(folder, stage)
        assert record["nonfinite_steps"] == 1, record["nonfinite_steps"]
        assert finite(folder, stage), "weights that are not finite"
        assert "not applied (1 in a row)" in said, said
        folder = self.until(stage, f"nan-{stage}")
        status, said = self.run([*plant, "5", "1000000", *command, "--max_nonfinite_steps", "2"])
        assert status == 2, said
        assert re.search(r"max_nonfinite_steps=2 .* last good checkpoint is .* need a fresh start", said), said
        assert not (folder / stage).exists(), "a result of broken steps"
        return f"micro-batch {calls}: its step was left out, weights finite; all from the 5th: ended with status 2"

    def kill(self) -> str:
        kills, runs = self.kills, 0
        while kills > 0:
            runs += 1
            name = f"killed-{runs}"
            shutil.rmtree(self.folder(name), ignore_errors=True)
            while kills > 0:
                process = self.start(self.chain(name))
                try:
                    said, _ = process.communicate(timeout=random.uniform(1, 45))
                    assert process.returncode == 0, said
                    break
                except subprocess.TimeoutExpired:
                    kill(process)
                    kills -= 1
            status, said = self.run_chain(name)
            assert status == 0, said
            for stage in TRAINED:
                assert weights(self.folder(name), stage) == self.weights[stage], f"{stage} ended otherwise"
            stages = [json.loads(line)["stage"] for line in (self.folder(name) / "ledger.jsonl").open()]
            assert stages == list(STAGES), stages
            assert not list(self.folder(name).glob(".*")), "something half-written was left"
        return f"{self.kills} times at random in {runs} run(s): all ended bit-identical, each stage in the ledger once"

    def truncate(self, stage: str) -> str:
        folder = self.until(stage, f"truncated-{stage}")
        *_, older, newest = self.killed_after(self.stage(stage, folder), folder, stage, 2)
        largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        os.truncate(largest, largest.stat().st_size // 2)
        status, said = self.run(self.stage(stage, folder))
        assert status == 0, said
        assert f"{newest} is damaged ({largest.name} has" in said, said
        assert f"resuming from the older {older.name}" in said, said
        assert weights(folder, stage) == self.weights[stage], "it ended otherwise"
        return f"{largest.name} cut to half: said so, resumed from {older.name}, ended bit-identical"

    def full(self, stage: str) -> str:
        folder = self.until(stage, f"full-{stage}")
        one = size(self.killed_after(self.stage(stage, folder), folder, stage, 1)[0])
        folder = self.until(stage, f"full-{stage}")
        with SmallDisk(folder, size(folder) + int(1.6 * one)) as disk:
            status, said = self.run(self.stage(stage, folder), **disk.options)
            lines = [line for line in said.splitlines() if "the disk is full" in line]
            assert status == 1, (status, said)
            assert len(lines) == 1, said
            assert "Traceback" not in said, said
            assert "Make room" in lines[0], said
            assert "same command resumes" in lines[0], said
            assert not (folder / stage).exists(), "a half result"
            whole = there(folder, stage)
            disk.grow()
            status, said = self.run(self.stage(stage, folder))
            assert status == 0, said
            assert ("resumed from" in said) == bool(whole), said
            assert weights(folder, stage) == self.weights[stage], "it ended otherwise"
        return f"{disk.kind}: one line and status 1; with room it resumed and ended bit-identical"

    def second(self) -> str:
        folder = self.until("pretrain", "second")
        first = self.start(self.stage("pretrain", folder, max_steps=100_000))
        while not (folder / ".stage.lock").exists():
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.01)
        for command in (self.stage("pretrain", folder), self.chain("second")):
            started = time.monotonic()
            status, said = self.run(command)
            took = time.monotonic() - started
            assert status == 2, said
            assert re.search(rf"process {first.pid} on \S+ .* is at work here.*kill {first.pid}", said), said
        first.terminate()
        said, _ = first.communicate()
        assert first.returncode == 0, said
        assert "with a checkpoint" in said, said
        assert not list(folder.glob(".*")), "a lock was left"
        return f"a stage by hand and nanohf run: refused with status 2 after {took:.0f} s, the first undisturbed"

    def world(self, stage: str) -> str:
        two = {"launcher": TWO}
        environment = {"ACCELERATE_USE_CPU": "true"}
        expected = read(self.folder("whole"), stage)
        for begin, end, processes in (({}, two, 2), (two, {}, 1)):
            folder = self.until(stage, f"world-{stage}")
            self.killed_after(self.stage(stage, folder, **begin), folder, stage, 1, environment=environment)
            status, said = self.run(self.stage(stage, folder, **end), environment=environment)
            assert status == 0, said
            assert re.search(r"written by \d process\(es\), now \d: still \d+ rows per step", said), said
            record = read(folder, stage)
            assert record["world_size"] == processes, record["world_size"]
            if stage == "pretrain":
                assert record["tokens"] == expected["tokens"], (record["tokens"], expected["tokens"])
            else:
                steps = int(SETTINGS[f"{stage}.max_steps"])
                assert f"step {steps}/{steps}" in said, said
            assert finite(folder, stage)
        return "1 to 2 and 2 to 1: the same rows per step and steps, tokens as read"

    def data(self) -> str:
        text = self.work / "text"
        text.mkdir(exist_ok=True)
        words = ["the", "cat", "sat", "and", "looked", "at", "two", "small", "birds", "by", "an", "old", "river"]
        for name in "abc":
            lines = [json.dumps({"text": " ".join(random.choices(words, k=60))}) for _ in range(400)]
            (text / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        folder = self.until("pretrain", "data")
        self.killed_after(self.stage("pretrain", folder, dataset=text), folder, "pretrain", 1)
        with (text / "b.jsonl").open("a") as file:
            file.write(json.dumps({"text": "one more"}) + "\n")
        status, said = self.run(self.stage("pretrain", folder, dataset=text))
        assert status == 0, said
        assert re.search(r"warning: the data has changed .*b\.jsonl has .* bytes, had .* --from", said), said
        return "a file grew: named in a warning at the resumption, with what to do"


class SmallDisk:
    """A folder on a tmpfs of so many bytes; where none may be mounted, files of a limited size."""

    def __init__(self, folder: Path, room: int):
        self.folder, self.room, self.options = folder, room, {}

    def __enter__(self):
        content = self.folder.with_name(f"{self.folder.name}-content")
        self.folder.rename(content)
        self.folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.room}", "tmpfs", str(self.folder)]
        self.mounted = subprocess.run(mount, capture_output=True).returncode == 0
        self.kind = "a full tmpfs" if self.mounted else "RLIMIT_FSIZE"
        if not self.mounted:
            most = max(p.stat().st_size for p in content.rglob("*") if p.is_file()) // 2
            self.options["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        shutil.copytree(content, self.folder, dirs_exist_ok=True)
        shutil.rmtree(content)
        return self

    def grow(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,size=2g", str(self.folder)], check=True)

    def __exit__(self, *_):
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


def there(folder: Path, stage: str) -> list[Path]:
    return list((folder / "checkpoints" / stage).glob(CHECKPOINTS[stage]))


def kill(process: subprocess.Popen) -> None:
    """With all that it started: torch's launcher puts its workers in sessions of their own."""
    for one in (*psutil.Process(process.pid).children(recursive=True), process):
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()


def read(folder: Path, stage: str) -> dict:
    return json.loads((folder / stage / "stage.json").read_text())


def weights(folder: Path, stage: str) -> str:
    return hashlib.sha256((folder / stage / "model.safetensors").read_bytes()).hexdigest()


def finite(folder: Path, stage: str) -> bool:
    from safetensors.torch import load_file

    return all(weight.isfinite().all() for weight in load_file(folder / stage / "model.safetensors").values())


def size(folder: Path) -> int:
    """Bytes of a folder's files in whole pages, as a tmpfs counts them."""
    return sum(-(-p.stat().st_size // 4096) * 4096 for p in folder.rglob("*") if p.is_file())


def plant(first: int, last: int, arguments: list[str]) -> None:
    """Runs `-m MODULE ARGUMENTS` in this process with NaN in the losses of these micro-batches, counted from 1."""
    import importlib

    from accelerate import Accelerator

    from nanohf import console

    backward, count = Accelerator.backward, 0

    def broken(self, loss, **kwargs):
        nonlocal count
        count += 1
        return backward(self, loss * float("nan") if first <= count <= last else loss, **kwargs)

    Accelerator.backward = broken
    _, module, *rest = arguments
    sys.argv = [module, *rest]
    console.run_as_program(importlib.import_module(module).main)


def faults(tried: Faults, only: set[str]) -> list[tuple[str, Callable[[], str]]]:
    listed = [(f"NaN in {stage}", "nan", lambda s=stage: tried.nan(s)) for stage in TRAINED]
    listed += [
        (f"newest checkpoint of {stage} cut", "truncate", lambda s=stage: tried.truncate(s)) for stage in TRAINED
    ]
    listed += [(f"disk full in {s}", "full", lambda s=s: tried.full(s)) for s in TRAINED]
    listed += [("second run in the folder", "second", tried.second)]
    listed += [(f"other processes in {stage}", "world", lambda s=stage: tried.world(s)) for stage in TRAINED]
    listed += [("data changed", "data", tried.data), ("SIGKILL", "kill", tried.kill)]
    return [(name, fault) for name, kind, fault in listed if kind in only or name in only or not only]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="SIGKILLs at random times")
    parser.add_argument("--only", default="", help="some faults, by kind or name, with commas between them")
    parser.add_argument("--seed", type=int, default=0, help="of the random times and places")
    args = parser.parse_args()
    random.seed(args.seed)
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        tried = Faults(Path(work), args.kills)
        print("| fault | outcome |\n|---|---|", flush=True)
        for name, fault in faults(tried, set(filter(None, args.only.split(",")))):
            try:
                outcome = fault()
            except AssertionError as error:
                failed += 1
                outcome = "**WRONG**: " + " / ".join(str(error).strip().splitlines()[-12:]).replace("|", "\\|")
            print(f"| {name} | {outcome} |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plant"]:
        plant(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    else:
        sys.exit(main())
