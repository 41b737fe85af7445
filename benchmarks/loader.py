"""What the loader is worth: bits per byte after equal steps on the rows of this loader and of another commit's.

    git worktree add /somewhere 4dc1f41
    python benchmarks/loader.py --corpus FOLDER --before /somewhere                       # books, one .txt each
    python benchmarks/loader.py --dataset FOLDER --before /somewhere --seeds 0 1 2        # any folder of text

Each loader's rows are written to a file by its own code, and the same model is trained on both by this commit's code:
depth 2, modern, V = 2,048, rows of 1,024 tokens, as in recipes/d2. --corpus: a folder of train-*.parquet with a
sources.csv.gz that names file, row, source and title; its books are joined from their rows, and two are held out.
Elsewhere the held-out text is the folder's own validation split. One thread unless --threads says otherwise.
"""

import argparse
import csv
import gzip
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from itertools import islice
from pathlib import Path

import numpy
import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer

from nanohf.data.sources import text_stream
from nanohf.evals.bpb import bits_per_byte
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.groups import build_optimizer
from nanohf.optim.schedule import lr_factor, muon_momentum
from nanohf.tokenizer.train_bpe import encode_documents, token_bytes, train_tokenizer

ROWS, LENGTH = 8, 1024
DUMP = """
import json, os, sys, time
from functools import partial
import numpy
from transformers import AutoTokenizer
try:
    from nanohf.data.packing import PackedLoader
    from nanohf.tokenizer.train_bpe import encode_documents
except ImportError:
    from nanohf.data.loader import PackedLoader
    from nanohf.tokenizer.train import encode_documents
from nanohf.data.sources import text_stream
dataset, tokenizer, out, steps, rows, length, seed = sys.argv[1:]
seeded = {"seed": int(seed)} if "seed" in text_stream.__code__.co_varnames else {}
stream = text_stream(dataset, "train", **seeded)
encode = partial(encode_documents, AutoTokenizer.from_pretrained(tokenizer))
loader = PackedLoader(stream, encode, int(rows), int(length))
started = time.perf_counter()
batches = numpy.stack([next(loader).numpy().astype(numpy.int16) for _ in range(int(steps))])
numpy.save(out, batches)
distinct = len({row.tobytes() for row in batches.reshape(-1, int(length))})
shares = loader.shares() | {"distinct_rows": distinct, "rows": int(steps) * int(rows)}
print(json.dumps(shares | {"epochs": loader.place["epoch"], "seconds": time.perf_counter() - started}), flush=True)
os._exit(0)  # not waiting for the chunk that is read ahead
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", type=Path, help="a folder of text with a validation split")
    parser.add_argument("--corpus", type=Path, help="a folder that books are joined from")
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the commit to compare with")
    parser.add_argument("--megabytes", type=float, default=9.0, help="of books")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("loader-benchmark"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.corpus:
        args.dataset, held_out = write_books(args.corpus, args.work, int(args.megabytes * 1e6))
    else:
        held_out = [row["text"] for row in text_stream(str(args.dataset), "validation")]

    name = args.dataset.resolve().name
    tokenizer = make_tokenizer(args.dataset, args.work / f"tokenizer-{name}")
    validation = rows_of(tokenizer, held_out)
    here = Path(__file__).resolve().parents[1]
    for seed in args.seeds:
        for which, checkout in (("before", args.before), ("now", here)):
            rows = args.work / f"{name}-{which}-{seed}.npy"
            shares = dump(checkout, args, rows, seed)
            line = {"text": name, "loader": which, "seed": seed, "steps": args.steps, "read": shares}
            line |= train(rows, tokenizer, validation, seed)
            print(json.dumps(line), flush=True)
            with (args.work / "results.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")


def write_books(corpus: Path, work: Path, size: int) -> tuple[Path, list[str]]:
    """Books of up to `size` bytes together as one .txt each, and the text of two more."""
    parts = defaultdict(list)
    with gzip.open(corpus / "sources.csv.gz", "rt", encoding="utf-8") as file:
        listed = [line for line in csv.DictReader(file) if line["source"] == "standardebooks"]
    texts = {name: pq.read_table(corpus / name)["text"].to_pylist() for name in {line["file"] for line in listed}}
    for line in listed:
        chapter = [int(number) for number in re.findall(r"\d+", line["title"])]
        parts[line["url"]].append((chapter, texts[line["file"]][int(line["row"])]))
    books = ["\n\n".join(text for _, text in sorted(part)) for _, part in sorted(parts.items())]
    folder = work / "books"
    folder.mkdir(exist_ok=True)
    held_out, written = books[:2], 0
    for number, book in enumerate(books[2:]):
        if written + len(book.encode()) <= size:
            (folder / f"book{number:02d}.txt").write_text(book, encoding="utf-8")
            written += len(book.encode())
    print(f"{len(list(folder.iterdir()))} books of {written:,} bytes; held out {sum(map(len, held_out)):,} characters")
    return folder, held_out


def make_tokenizer(dataset: Path, folder: Path):
    if not folder.is_dir():
        texts = islice((row["text"] for row in text_stream(str(dataset), "train")), 5000)
        train_tokenizer(texts, 2048).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def rows_of(tokenizer, texts: list[str]) -> list[torch.Tensor]:
    """Up to 16 batches of rows that each begin with BOS, one text behind the other."""
    ids = [token for encoded in encode_documents(tokenizer, texts) for token in encoded]
    rows = [[tokenizer.bos_token_id, *ids[at : at + LENGTH - 1]] for at in range(0, len(ids) - LENGTH, LENGTH - 1)]
    return list(torch.tensor(rows[: 16 * ROWS]).split(ROWS))


def dump(checkout: Path, args, out: Path, seed: int) -> dict:
    tokenizer = args.work / f"tokenizer-{args.dataset.resolve().name}"
    shape = (args.dataset.resolve(), tokenizer.resolve(), out.resolve(), args.steps, ROWS, LENGTH, seed)
    command = [sys.executable, "-c", DUMP, *map(str, shape)]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve()), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def train(rows: Path, tokenizer, validation: list[torch.Tensor], seed: int) -> dict:
    batches = torch.from_numpy(numpy.load(rows)).long()
    torch.manual_seed(seed)
    model = NanoHFForCausalLM(NanoHFConfig.from_depth(2, len(tokenizer), preset="modern")).train()
    optimizer = build_optimizer(model)
    base = [group["lr"] for group in optimizer.param_groups]
    measure = partial(bits_per_byte, model, validation, torch.tensor(token_bytes(tokenizer)))
    curve, started = {0: measure()}, time.perf_counter()
    bf16 = torch.cpu._is_avx512_bf16_supported()
    for step, ids in enumerate(batches):
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = lr * lr_factor(step, len(batches), warmup=0, warmdown=0.5)
            if group["kind"] == "muon":
                group["momentum"] = muon_momentum(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % max(1, len(batches) // 6) == 0:
            curve[step + 1] = measure()
            print(f"step {step + 1} loss {loss.item():.3f} bpb {curve[step + 1]:.4f}", file=sys.stderr, flush=True)
    return {"bpb": curve[max(curve)], "curve": curve, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    main()
