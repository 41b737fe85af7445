"""runs/NAME/ledger.jsonl: one line per finished stage; and how fast the stages last ran on this machine."""

import json
import math
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from nanohf.recipe.stage_names import STAGES
from nanohf.runs.stage_record import EvaluationRecord, StageRecord
from nanohf.scaling.parameters import parameters

LEDGER = "ledger.jsonl"
LONG = {"versions", "data", "mixture", "held_out", "losses", "validation", "rewards", "sample"}  # not for one line
LONG |= {"word_problems", "chosen", "drawn"}


def append(run_dir: Path, record: StageRecord) -> None:
    _append(run_dir, {key: value for key, value in asdict(record).items() if key not in LONG and value is not None})


def append_evaluation(run_dir: Path, record: EvaluationRecord, finished: str) -> None:
    parameters = max((scores["parameters"] for scores in record.stages.values()), default=None)
    line = {"stage": "evaluate", "finished": finished, "minutes": record.minutes, "parameters": parameters}
    _append(run_dir, line | {"device": record.device, "host": record.host})


def _append(run_dir: Path, line: dict) -> None:
    with (run_dir / LEDGER).open("ab+") as ledger:
        ledger.seek(0, os.SEEK_END)
        if ledger.tell():
            ledger.seek(-1, os.SEEK_END)
        half = ledger.read(1) not in (b"", b"\n")  # of a killed run
        ledger.write(b"\n" * half + json.dumps(line).encode() + b"\n")


@dataclass(frozen=True)
class Speed:
    """One finished stage of a run. A figure that its line lacks, or gives as no positive number, is None."""

    stage: str
    finished: datetime
    host: str
    depth: int | None = None
    vocab_size: int | None = None
    parameters: int | None = None  # total; by the formula where the line gives only depth and vocab_size
    minutes: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None  # tokens / minutes where the line does not give it
    device: str | None = None


def last_speeds(runs_dir: Path, hostname: str) -> dict[str, Speed]:
    """Every stage's newest finished run on this host, over all runs; what never ran here is absent."""
    speeds: dict[str, Speed] = {}
    for ledger in sorted(Path(runs_dir).glob(f"*/{LEDGER}")):
        for line in ledger.read_text(encoding="utf-8", errors="replace").splitlines():
            speed = parse(line)
            if speed is None or speed.host != hostname:
                continue
            if speed.stage not in speeds or speed.finished >= speeds[speed.stage].finished:
                speeds[speed.stage] = speed
    return {stage: speeds[stage] for stage in STAGES if stage in speeds}


def parse(line: str) -> Speed | None:
    """A ledger line, or None where it is broken: a killed run may leave half a line behind."""
    try:
        record = json.loads(line)
        stage, host = record["stage"], record["host"]
        finished = datetime.fromisoformat(record["finished"]).astimezone()  # a naive time is local
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    if stage not in STAGES:
        return None
    depth, vocab_size = whole(record.get("depth")), whole(record.get("vocab_size"))
    total, tokens = whole(record.get("parameters")), whole(record.get("tokens"))
    minutes, rate = positive(record.get("minutes")), positive(record.get("tokens_per_second"))
    if total is None and depth and vocab_size:
        total = parameters(depth, vocab_size).total
    if rate is None and tokens and minutes:
        rate = tokens / (60 * minutes)
    return Speed(stage, finished, host, depth, vocab_size, total, minutes, tokens, rate, record.get("device"))


def positive(value) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and value > 0 and math.isfinite(value) else None


def whole(value) -> int | None:
    value = positive(value)
    return int(value) if value is not None and value >= 1 else None
