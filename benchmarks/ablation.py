"""What each piece of model, optimizer and settings is worth: bits per byte after equal tokens, on real text.

    python benchmarks/ablation.py --dataset FOLDER_OR_HUB_ID [--arms classic modern] [--seeds 0 1 2] [--tokens 2048000]
    python benchmarks/ablation.py --dataset FOLDER_OR_HUB_ID --arms modern,matrix_lr=0.03 modern,torch.Muon=0.02

An arm is words with commas between: pieces of the model (PIECES), heads=N, settings of `build_groups`, warmdown;
torch.Muon or AdamW at a rate take the block matrices from our optimizer. Every arm of a seed sees the same rows in the
same order. bf16 where the CPU has it, compiled. A finished run is a line in --out, and is not run again.
"""

import argparse
import json
import time
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from nanohf.data.packing import PackedLoader
from nanohf.data.sources import text_stream
from nanohf.evals.bpb import bits_per_byte
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.groups import build_groups, build_optimizer
from nanohf.optim.muon import MuonAdamW
from nanohf.optim.schedule import lr_factor, muon_momentum
from nanohf.tokenizer.train_bpe import encode_documents, token_bytes, train_tokenizer

PASS = 8 * 512  # tokens of one forward pass
WINDOWS = {"layer_types": ["sliding_attention"] * 3 + ["full_attention"], "sliding_window": 128}
THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}}
PIECES = {
    "classic": {},
    "value_embeddings": {"value_embeddings": True},
    "residual_scalars": {"residual_scalars": True},
    "backout": {"backout": True},
    "query_key_scale": {"query_key_scale": 1.2},
    "rope_theta": THETA,
    "windows": WINDOWS,
    "modern": {"preset": "modern"},
    "everything but windows": {"preset": "modern", "backout": True, "query_key_scale": 1.2} | THETA,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--arms", nargs="+", default=list(PIECES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=2_048_000)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("ablation.jsonl"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    texts = (row["text"] for row in islice(text_stream(args.dataset, "train"), 20_000))
    tokenizer = train_tokenizer(texts, args.vocab_size)
    validation = list(islice(open_loader(args, tokenizer, "validation"), 64))
    for seed in args.seeds:
        for arm in args.arms:
            line = {name: getattr(args, name) for name in ("depth", "vocab_size", "tokens", "batch_tokens")}
            line |= {"arm": arm, "seed": seed}
            if not is_done(args.out, line):
                line |= run(arm, seed, args, tokenizer, validation)
                with args.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)


def run(arm: str, seed: int, args, tokenizer, validation) -> dict:
    pieces, settings = parse(arm)
    warmdown = settings.pop("warmdown", 0.2)
    torch.manual_seed(seed)
    model = NanoHFForCausalLM(NanoHFConfig.from_depth(args.depth, len(tokenizer), **pieces)).train()
    optimizers = build_optimizers(model, settings)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    base = [group["lr"] for group in groups]
    loader = islice(open_loader(args, tokenizer, "train"), seed * args.tokens // PASS, None)
    bytes_of_token = torch.tensor(token_bytes(tokenizer))
    compiled = torch.compile(model, dynamic=False)
    steps, passes = args.tokens // args.batch_tokens, args.batch_tokens // PASS
    curve, started, cpu = {}, time.perf_counter(), time.process_time()
    for step in range(steps):
        for group, lr in zip(groups, base, strict=True):
            group["lr"] = lr * lr_factor(step, steps, warmup=0, warmdown=warmdown)
            if "momentum" in group:
                group["momentum"] = muon_momentum(step)
        for _ in range(passes):
            ids = next(loader)
            with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
                loss = compiled(input_ids=ids, labels=ids, use_cache=False).loss / passes
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % (steps // 4) == 0:
            spent = time.process_time() - cpu, time.perf_counter() - started
            curve[step + 1] = bits_per_byte(model, validation, bytes_of_token)
            print(f"seed {seed} step {step + 1} loss {loss.item() * passes:.3f} bpb {curve[step + 1]:.4f}", flush=True)
    return {
        "bpb": curve[steps],
        "curve": curve,
        "cpu_seconds": spent[0],
        "seconds": spent[1],
        "parameters": model.num_parameters(),
    }


def parse(arm: str) -> tuple[dict, dict]:
    """Fields of the model's config, and settings of its training."""
    pieces, settings = {}, {}
    for word in arm.split(","):
        name, _, value = word.partition("=")
        if name == "heads":
            pieces["num_attention_heads"] = int(value)
            continue
        pieces |= {} if value else PIECES[name]
        settings |= {name: float(value)} if value else {}
    return pieces, settings


def build_optimizers(model, settings: dict) -> list[torch.optim.Optimizer]:
    """Ours, or torch's for the block matrices at the rate given, with ours for the rest."""
    rates = {name: settings.pop(name) for name in ("torch.Muon", "AdamW") if name in settings}
    if not rates:
        return [build_optimizer(model, **settings)]
    ((name, lr),) = rates.items()
    groups = build_groups(model.named_parameters(), model.config.hidden_size, **settings)
    matrices = next(group for group in groups if group["kind"] == "muon")["params"]
    rest = MuonAdamW([group for group in groups if group["kind"] != "muon"])
    if name == "torch.Muon":
        return [torch.optim.Muon(matrices, lr=lr, weight_decay=0.0), rest]
    return [torch.optim.AdamW(matrices, lr=lr, betas=(0.9, 0.95), weight_decay=0.0), rest]


def open_loader(args, tokenizer, split: str) -> PackedLoader:
    return PackedLoader(text_stream(args.dataset, split), partial(encode_documents, tokenizer), 8, 512)


def is_done(out: Path, line: dict) -> bool:
    lines = map(json.loads, out.read_text().splitlines()) if out.exists() else []
    return any(line.items() <= done.items() for done in lines)


if __name__ == "__main__":
    main()
