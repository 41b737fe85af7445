"""A mixture's rows: one core as they were made at another commit, against all cores, and against a second start.

    git worktree add /somewhere 00ba510
    python benchmarks/mixture.py --data FOLDER --before /somewhere [--rounds 3] [--processes 2]

--data: a folder with chat, gsm8k, mmlu, ai2_arc and math_problems, as on the Hub. Together they have about 51,000
conversations. Each run is a process of its own, in turn, with its commit's chat template, and its rows must be those of
the first. Seconds are wall time after the imports, CPU seconds those of all its processes; medians of the rounds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = """
import hashlib, json, resource, sys, time
from pathlib import Path
from types import SimpleNamespace
import datasets
from transformers import AutoTokenizer
from nanohf.data.chat_source import ChatSource
from nanohf.data.mixture import mixture
which, sources, tokenizer, folder, processes = sys.argv[1:]
datasets.disable_progress_bars()
sources = [ChatSource(**source) for source in json.loads(sources)]
tokenizer = AutoTokenizer.from_pretrained(tokenizer, model_max_length=int(1e30))
args = SimpleNamespace(seed=0, max_length=1024, packing=True, packing_strategy="bfd", assistant_only_loss=True)
args.dataset_num_proc = None if which == "before" else int(processes)
def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
if which != "before":
    from nanohf.train.prepared_rows import prepared_rows
tokenizer.apply_chat_template([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
started, used = time.perf_counter(), cpu()
if which == "before":
    rows, given = mixture(tokenizer, sources, args)
else:
    rows, given, _ = prepared_rows(Path(folder), tokenizer, sources, [], args)
found = {"seconds": time.perf_counter() - started, "cpu": cpu() - used, "rows": len(rows)}
content = hashlib.sha256(repr(given).encode())
for batch in rows.with_format("arrow").iter(1000):
    content.update(json.dumps(batch.to_pydict()).encode())
print(json.dumps(found | {"tokens": sum(g.tokens for g in given), "content": content.hexdigest()}))
"""


def sources(data: Path) -> list[dict]:
    folders = [("chat", None), ("gsm8k", "main"), ("math_problems", None), ("ai2_arc", "ARC-Easy")]
    folders += [("ai2_arc", "ARC-Challenge")]
    found = [
        {"dataset": str(data / folder), "config": config, "split": split}
        for folder, config in folders
        for split in ("train", "test")
    ]
    return found + [{"dataset": str(data / "mmlu"), "config": "all", "split": split} for split in ("test", "dev")]


def make_tokenizer(data: Path, folder: Path) -> None:
    from nanohf.data.sources import text_stream
    from nanohf.tokenizer.train_bpe import capped, train_tokenizer

    texts = (row["text"] for row in text_stream(str(data / "stories"), "train"))
    train_tokenizer(capped(texts, 8_000_000), 8192).save_pretrained(folder)


def run(which: str, checkout: Path, *arguments: str) -> dict:
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, which, *arguments], env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the commit to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    here, given = Path(__file__).resolve().parents[1], json.dumps(sources(args.data))
    found: dict[str, list[dict]] = {"before": [], "first start": [], "second start": []}
    with tempfile.TemporaryDirectory() as work:
        now, before = Path(work, "tokenizer"), Path(work, "tokenizer-before")
        make_tokenizer(args.data, now)
        shutil.copytree(now, before)
        shutil.copy(args.before / "nanohf/tokenizer/chat_template.jinja", before)
        for number in range(args.rounds):
            for which, runs in found.items():
                checkout, tokenizer = (args.before, before) if which == "before" else (here, now)
                arguments = [given, tokenizer, Path(work, f"rows-{number}"), args.processes]
                runs.append(run(which, checkout, *map(str, arguments)))
                print(json.dumps({"which": which} | runs[-1]), flush=True)
                assert runs[-1]["content"] == found["before"][0]["content"], "other rows"
    middle = {
        which: {key: round(statistics.median(run[key] for run in runs), 2) for key in ("seconds", "cpu")}
        for which, runs in found.items()
    }
    ratio = middle["before"]["seconds"] / middle["first start"]["seconds"]
    print(json.dumps({"processes": args.processes, "median": middle, "times as fast": round(ratio, 2)}))


if __name__ == "__main__":
    main()
