"""Forward + backward tokens/s of the classic model against transformers' own NanoChatForCausalLM of the same shape.

    python benchmarks/model.py [--depth 4] [--vocab-size 4096] [--rows 8] [--seq 512] [--threads 2] [--rounds 7]

One process, the same weights and rows, fp32, eager mode, the two models in turn. Their ratio is taken within each
round, because machines slow down and speed up.
"""

import argparse
import statistics
import time

import torch
from transformers import NanoChatConfig, NanoChatForCausalLM

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


def seconds(model: torch.nn.Module, rows: torch.Tensor) -> tuple[float, float]:
    """Wall time of one forward and backward pass, and the loss."""
    model.zero_grad(set_to_none=True)
    start = time.perf_counter()
    loss = model(input_ids=rows, labels=rows, use_cache=False).loss
    loss.backward()
    return time.perf_counter() - start, loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"depth": 4, "vocab-size": 4096, "rows": 8, "seq": 512, "threads": 2, "rounds": 7}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    models = pair(args.depth, args.vocab_size)
    rows = torch.randint(args.vocab_size, (args.rows, args.seq))
    losses = {name: seconds(model, rows)[1] for name, model in models.items()}  # also warms up
    torch.testing.assert_close(losses["nanohf"], losses["transformers"], rtol=0, atol=1e-4)

    times = {name: [] for name in models}
    for _ in range(args.rounds):
        for name, model in models.items():
            times[name].append(seconds(model, rows)[0])
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    print(f"depth {args.depth}, {args.vocab_size:,} tokens, {args.rows} x {args.seq}, fp32, {args.threads} threads")
    for name, median in medians.items():
        spread = f"{min(times[name]):.2f}-{max(times[name]):.2f}"
        print(f"{name:>12}: {rows.numel() / median:8,.0f} tokens/s, median of {args.rounds}: {median:.2f} s ({spread})")
    ratios = [theirs / ours for ours, theirs in zip(times["nanohf"], times["transformers"], strict=True)]
    print(f"{'ratio':>12}: {statistics.median(ratios):8.2f}x, median over rounds")


if __name__ == "__main__":
    main()
