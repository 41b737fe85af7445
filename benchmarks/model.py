"""Forward + backward tokens/s of the classic model against transformers' own NanoChatForCausalLM of the same shape.

    python benchmarks/model.py [--depth 4] [--vocab-size 4096] [--rows 8] [--seq 512] [--threads 2] [--rounds 7]

One process, the same weights and rows, eager mode, the two models in turn: in fp32; in fp32 with our products by
oneDNN, as the pretraining stage sets it; in bf16. Ratios are taken within each round, because machines slow down and
speed up. Where other processes want the cores, `--threads 1 --cpu-time` counts processor time instead.
"""

import argparse
import statistics
import time

import torch
from transformers import NanoChatConfig, NanoChatForCausalLM

from nanohf.hardware.device import use_onednn
from nanohf.model import NanoHFConfig, NanoHFForCausalLM


def pair(depth: int, vocab_size: int) -> dict[str, torch.nn.Module]:
    """Both models with the same random weights; none of them zero, so that every gradient is real."""
    config = NanoHFConfig.from_depth(depth, vocab_size=vocab_size)
    shape = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    theirs = NanoChatForCausalLM(
        NanoChatConfig(vocab_size=vocab_size, **{field: getattr(config, field) for field in shape})
    )
    ours = NanoHFForCausalLM(config)
    ours.load_state_dict(theirs.state_dict())
    return {"nanohf": ours.train(), "transformers": theirs.train()}


def seconds(model: torch.nn.Module, rows: torch.Tensor, bf16: bool, clock) -> tuple[float, float]:
    """Time of one forward and backward pass, and the loss."""
    model.zero_grad(set_to_none=True)
    start = clock()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(input_ids=rows, labels=rows, use_cache=False).loss
    loss.backward()
    return clock() - start, loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"depth": 4, "vocab-size": 4096, "rows": 8, "seq": 512, "threads": 2, "rounds": 7}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    models = pair(args.depth, args.vocab_size)
    rows = torch.randint(args.vocab_size, (args.rows, args.seq))
    clock = time.process_time if args.cpu_time else time.perf_counter
    losses = {name: seconds(model, rows, False, clock)[1] for name, model in models.items()}
    torch.testing.assert_close(losses["nanohf"], losses["transformers"], rtol=0, atol=1e-4)

    print(f"depth {args.depth}, {args.vocab_size:,} tokens, {args.rows} x {args.seq}, {args.threads} threads")
    for setting in ("fp32", "fp32, ours by oneDNN", "bf16"):
        times = {name: [] for name in models}
        for _ in range(args.rounds + 1):
            for name, model in models.items():
                torch.set_float32_matmul_precision("highest")
                if name == "nanohf" and "oneDNN" in setting:
                    use_onednn("cpu")
                times[name].append(seconds(model, rows, setting == "bf16", clock)[0])
        report(setting, {name: rows.numel() / torch.tensor(taken[1:]) for name, taken in times.items()})


def report(setting: str, rates: dict[str, torch.Tensor]) -> None:
    """rates: tokens/s of each round; the first, which warms up, is left out."""
    for name, rate in rates.items():
        print(
            f"{setting:>20} {name:>12}: {statistics.median(rate.tolist()):8,.0f} ({rate.min():,.0f}-{rate.max():,.0f})"
        )
    ratio = statistics.median((rates["nanohf"] / rates["transformers"]).tolist())
    print(f"{setting:>20} {'ratio':>12}: {ratio:8.2f}x, median over {len(rates['nanohf'])} rounds", flush=True)


if __name__ == "__main__":
    main()
