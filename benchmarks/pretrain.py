"""A whole pretraining step, ours against a plain one of the same shape: tokens/s, MFU, the loader's share, peak memory.

    python benchmarks/pretrain.py [--depths 2 4 6] [--precisions no bf16] [--rows 8] [--length 512] [--threads 2]
    python benchmarks/pretrain.py --device cuda --depths 12 20 --precisions bf16 --length 2048 --vocab-size 65536

Ours: `train_step` with NanoHFForCausalLM, MuonAdamW and PackedLoader, which tokenises as it goes. The plain one:
transformers' NanoChatForCausalLM, torch.optim.Muon and AdamW, clipping, autocast and a DataLoader over rows tokenised
beforehand. Each eager and compiled, in turn within every round; ratios are taken within rounds, because machines slow
down and speed up. On a busy machine the processor's time says more than the clock's.
"""

import argparse
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import NanoChatConfig, NanoChatForCausalLM

from nanohf.data.packing import PackedLoader
from nanohf.data.sources import text_stream
from nanohf.hardware.device import peak_flops, use_onednn
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.groups import build_optimizer
from nanohf.scaling.flops import flops_per_token
from nanohf.tokenizer.train_bpe import encode_documents, train_tokenizer
from nanohf.train.pretrain_loop import train_step

NAMES = ("ours", "ours compiled", "plain", "plain compiled")


def ours(args, config, loader, accelerator, is_compiled: bool):
    model = NanoHFForCausalLM(config)
    optimizer = build_optimizer(model)
    model, optimizer = accelerator.prepare(torch.compile(model, dynamic=False) if is_compiled else model, optimizer)
    return lambda: train_step(accelerator, model.train(), optimizer, loader, 1, 1.0)[0]


def plain(args, config, rows, device, is_compiled: bool):
    fields = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    shape = {field: getattr(config, field) for field in fields}
    model = NanoChatForCausalLM(NanoChatConfig(vocab_size=args.vocab_size, **shape)).to(device).train()
    blocks = [p for p in model.model.layers.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not q for q in blocks)]
    optimizers = torch.optim.Muon(blocks, lr=0.02, weight_decay=0.0), torch.optim.AdamW(rest, lr=0.004)
    batches = cycle(DataLoader(rows, batch_size=args.rows))
    forward = torch.compile(model, dynamic=False) if is_compiled else model

    def step() -> float:
        ids = next(batches).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=args.precisions == ["bf16"]):
            loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def measure(args) -> None:
    """One depth in one precision: the rounds, or with --only the peak memory of one contender alone."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    (depth,), (precision,) = args.depths, args.precisions
    accelerator = Accelerator(cpu=args.device == "cpu", mixed_precision=precision)
    texts = partial(text_stream, args.dataset, "train")
    tokenizer = train_tokenizer((row["text"] for row in islice(texts(), 2000)), min(args.vocab_size, 2048))
    encode = partial(encode_documents, tokenizer)
    config = NanoHFConfig.from_depth(depth, vocab_size=args.vocab_size)
    loaders, steps = {}, {}
    for name in [args.only] if args.only else NAMES:
        loaders[name] = PackedLoader(texts(), encode, args.rows, args.length)
        is_compiled = name.endswith("compiled")
        if name.startswith("ours"):
            steps[name] = ours(args, config, loaders[name], accelerator, is_compiled)
        else:
            rows = [row for batch in islice(loaders[name], 16) for row in batch]
            steps[name] = plain(args, config, rows, accelerator.device.type, is_compiled)
        for _ in range(3):
            steps[name]()  # compiles, and fills the loader's buffer

    if args.only:
        status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        resident = int(status["VmHWM"].split()[0]) * 1024  # ru_maxrss would begin with the parent's
        print(torch.cuda.max_memory_allocated() if args.device == "cuda" else resident)
        return
    times, cpu_times = ({name: [] for name in NAMES} for _ in range(2))
    for loader in loaders.values():
        loader.seconds = 0.0
    for _ in range(args.rounds):
        for name, step in steps.items():
            torch.set_float32_matmul_precision("highest")
            if name.startswith("ours"):
                use_onednn("cpu")  # as the stage does
            started, cpu_started = time.perf_counter(), time.process_time()
            for _ in range(args.steps):
                step()  # ends with the loss on the CPU, so nothing is left in flight
            times[name].append(time.perf_counter() - started)
            cpu_times[name].append(time.process_time() - cpu_started)

    tokens = args.rows * args.length * args.steps
    weights = 12 * depth * config.hidden_size**2 + args.vocab_size * config.hidden_size
    flops = flops_per_token(weights, depth, config.hidden_size, args.length)
    peak = peak_flops(torch.cuda.get_device_name(), precision) if args.device == "cuda" else None
    print(f"depth {depth}, {precision}, {args.vocab_size:,} tokens, {args.rows} x {args.length}", flush=True)
    for name, taken in times.items():
        rate = tokens / statistics.median(taken)
        mfu = f", MFU {rate * flops / peak:.1%}" if peak else ""
        share = f", loader {loaders[name].seconds / sum(taken):.2%}" if name.startswith("ours") else ""
        spread = f"{tokens / max(taken):,.0f}-{tokens / min(taken):,.0f}"
        print(f"{name:>15}: {rate:9,.0f} tokens/s ({spread}){mfu}{share}", flush=True)
    for a, b in (("ours", "plain"), ("ours compiled", "plain compiled"), ("ours compiled", "plain")):
        wall, cpu = (
            statistics.median(y / x for x, y in zip(taken[a], taken[b], strict=True)) for taken in (times, cpu_times)
        )
        print(f"{a} : {b} = {wall:.2f}x, by CPU time {cpu:.2f}x", flush=True)
    for name in NAMES:
        print(f"{name:>15}: peak {int(run(args, depth, precision, '--only', name)) / 2**30:.2f} GiB alone", flush=True)


def run(args, depth: int, precision: str, *more: str) -> str:
    command = [sys.executable, __file__, "--depths", str(depth), "--precisions", precision, "--one", *more]
    for name in ("device", "dataset", "rows", "length", "threads", "rounds", "steps", "vocab_size"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {
        "rows": 8, "length": 512, "threads": 2, "rounds": 5, "steps": 3, "vocab-size": 4096,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--precisions", nargs="+", choices=["no", "bf16"], default=["no", "bf16"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dataset", default="builtin", help="builtin, a folder or a Hub id")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args)
        return
    for depth in args.depths:
        for precision in args.precisions:
            print(run(args, depth, precision), end="", flush=True)


if __name__ == "__main__":
    main()
