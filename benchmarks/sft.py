"""SFT tokens/s and padding on a CPU: one packed row a pass, as our recipes set, against TRL's settings at batch 8.

    python benchmarks/sft.py [--depth 4] [--vocab-size 4096] [--seq 1024] [--rounds 5] [--threads 2]

    one row a pass     packing: true, per_device_train_batch_size: 1, batch_tokens: 8 x max_length
    packed, batch 8    packing: true, per_device_train_batch_size: 8: TRL lays the eight rows end to end as one
    padded, batch 8    packing: false, per_device_train_batch_size: 8

One process, one model, one mixture of the toy world, fp32, TRL's SFTTrainer each time, in turn. A round is one step:
forward, backward and optimizer; the first two read the same eight packed rows, so their losses must agree. Only real
tokens count. `unused` is what padding, or a packed row that is not full, leaves of the rows' places.
"""

import argparse
import copy
import statistics
import time
from tempfile import TemporaryDirectory

import torch
from trl import SFTConfig, SFTTrainer

from nanohf.data import toy_world as world
from nanohf.data.chat_source import ChatSource
from nanohf.data.mixture import mixture
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.groups import build_optimizer
from nanohf.tokenizer.train_bpe import train_tokenizer

ROWS = 8
SETTINGS = {
    "one row a pass": {"packing": True, "per_device_train_batch_size": 1},
    "packed, batch 8": {"packing": True, "per_device_train_batch_size": ROWS},
    "padded, batch 8": {"packing": False, "per_device_train_batch_size": ROWS},
}
SOURCES = [
    ChatSource("builtin", "gsm8k", config="problems", rows=2000),
    ChatSource("builtin", "messages", config="conversations", rows=1000),
]


def trainer_of(model, tokenizer, folder: str, seq: int, **settings) -> SFTTrainer:
    args = SFTConfig(
        folder, max_length=seq, use_cpu=True, bf16=False, activation_checkpointing=False, report_to="none",
        assistant_only_loss=True, shuffle_dataset=False, train_sampling_strategy="sequential", **settings,
    )  # fmt: skip
    rows, _ = mixture(tokenizer, SOURCES, args)
    args.assistant_only_loss = False  # the rows bring their labels
    return SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)


def passes_of(trainer: SFTTrainer) -> list[dict]:
    """The batches of the first eight rows."""
    batches = iter(trainer.get_train_dataloader())
    return [next(batches) for _ in range(ROWS // trainer.args.per_device_train_batch_size)]


def step(trainer: SFTTrainer, model, optimizer, passes: list[dict]) -> tuple[float, float]:
    """Wall time of one optimizer step, and its loss."""
    labelled = sum((batch["labels"] != -100).sum() for batch in passes)
    start = time.perf_counter()
    loss = sum(trainer.training_step(model, dict(batch), num_items_in_batch=labelled).item() for batch in passes)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"depth": 4, "vocab-size": 4096, "seq": 1024, "rounds": 5, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    tokenizer = train_tokenizer((row["text"] for row in world.rows("documents", "train", 500)), 512)
    start = NanoHFForCausalLM(
        NanoHFConfig.from_depth(args.depth, vocab_size=args.vocab_size, max_position_embeddings=max(2048, args.seq))
    )
    with TemporaryDirectory() as folder:
        ways = {}
        for name, settings in SETTINGS.items():
            model = copy.deepcopy(start).train()
            trainer = trainer_of(model, tokenizer, folder, args.seq, **settings)
            ways[name] = trainer, model, build_optimizer(model), passes_of(trainer)
        print(f"depth {args.depth}, {args.vocab_size:,} tokens, rows of {args.seq}, fp32, {args.threads} threads")
        times, losses = {name: [] for name in ways}, {name: [] for name in ways}
        for number in range(args.rounds + 1):
            for name, way in ways.items():
                seconds, loss = step(*way)
                losses[name].append(loss)
                if number:  # the first warms up
                    times[name].append(seconds)

    ours, packed = (torch.tensor(losses[name]) for name in list(SETTINGS)[:2])
    torch.testing.assert_close(ours, packed, rtol=1e-3, atol=1e-3)
    speeds = {}
    for name, (trainer, _, _, passes) in ways.items():
        real = sum(int(b["attention_mask"].sum()) if "attention_mask" in b else b["input_ids"].numel() for b in passes)
        places = ROWS * args.seq if trainer.args.packing else sum(batch["input_ids"].numel() for batch in passes)
        speeds[name] = [real / taken for taken in times[name]]
        print(
            f"{name:>16}: {statistics.median(speeds[name]):7,.0f} tokens/s ({min(speeds[name]):,.0f}-"
            f"{max(speeds[name]):,.0f}), {real:,} tokens a step, {100 * (1 - real / places):.1f}% unused, "
            f"losses {losses[name][0]:.4f} to {losses[name][-1]:.4f}"
        )
    first, *others = speeds
    for name in others:
        ratios = [a / b for a, b in zip(speeds[first], speeds[name], strict=True)]
        print(f"{first} against {name}: {statistics.median(ratios):.2f}x, median over rounds")


if __name__ == "__main__":
    main()
