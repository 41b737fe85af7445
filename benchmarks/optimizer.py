"""One optimizer step: MuonAdamW against torch.optim.Muon (block matrices) and torch.optim.AdamW (embedding, head).

    python benchmarks/optimizer.py [--depths 4 6 12] [--threads 2] [--rounds 7] [--device cpu|cuda] [--profile]

The same fp32 weights and random gradients, the two in turn, the ratio within each round, because machines slow down
and speed up. Ours with NorMuon, as in pretraining. Vocabulary 4,096 up to depth 6, 32,768 above. "Products alone" are
those of torch's five steps of Newton-Schulz, in bf16 at the rate that this machine multiplies a stack of such matrices.
"""

import argparse
import statistics
import time

import torch

from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.groups import build_optimizer


def build(depth: int, device: str) -> NanoHFForCausalLM:
    vocab_size = 4096 if depth <= 6 else 32768
    model = NanoHFForCausalLM(NanoHFConfig.from_depth(depth, vocab_size=vocab_size)).to(device)
    torch.manual_seed(0)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return model


def torchs(model: NanoHFForCausalLM) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if ".layers." in name]
    rest = [p for name, p in model.named_parameters() if ".layers." not in name]
    return [
        torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=0.004, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, fused=True),
    ]


def seconds(step, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def floor(model: NanoHFForCausalLM, device: str) -> float:
    """Seconds of the 3 x 5 products of every block matrix, at the rate of one stack of squares."""
    size = model.config.hidden_size
    square = torch.randn(8, size, size, device=device, dtype=torch.bfloat16)
    torch.bmm(square, square)
    rate = 8 * 2 * size**3 / statistics.median(seconds(lambda: torch.bmm(square, square), device) for _ in range(9))
    flops = 0
    for name, p in model.named_parameters():
        if ".layers." in name:
            rows, cols = sorted(p.shape)
            flops += 5 * 2 * (2 * rows * rows * cols + rows**3)
    return flops / rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 6, 12])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", action="store_true", help="print where our step goes instead")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    for depth in args.depths:
        ours_model, theirs_model = build(depth, args.device), build(depth, args.device)
        ours, theirs = build_optimizer(ours_model, normuon=0.9), torchs(theirs_model)
        steps = {"nanohf": ours.step, "torch": lambda pair=theirs: [optimizer.step() for optimizer in pair]}
        for step in steps.values():  # states are made, caches filled
            seconds(step, args.device), seconds(step, args.device)
        if args.profile:
            with torch.profiler.profile() as profile:
                ours.step()
            print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))
            continue
        times = {name: [] for name in steps}
        for _ in range(args.rounds):
            for name, step in steps.items():
                times[name].append(seconds(step, args.device) * 1e3)
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        ratio = statistics.median(a / b for a, b in zip(times["nanohf"], times["torch"], strict=True))
        spread = ", ".join(f"{name} {medians[name]:.1f} ms ({min(t):.1f}-{max(t):.1f})" for name, t in times.items())
        print(f"d{depth}: {spread}, ratio {ratio:.2f}; products alone {floor(ours_model, args.device) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
