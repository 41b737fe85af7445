"""Rollout tokens/s: our engine against `model.generate`, alternating in one process.

    python benchmarks/rollout.py [--depth 4] [--vocab-size 4096] [--rounds 5] [--threads 2] [--cpu-time]

64 rows (4 prompts x 16 samples), prompts of 96 tokens, 128 new tokens, top_k 50, temperature 1. Once with rows that
never stop, once with a stop token that comes with probability 1/50, so that rows end at different lengths. Where other
processes want the cores, `--threads 1 --cpu-time` counts processor time instead.
"""

import argparse
import statistics
import time

import torch
from transformers import PreTrainedTokenizerFast

from nanohf.data import toy_world as world
from nanohf.generation.engine import Engine
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.tokenizer.train_bpe import train_tokenizer

PROMPTS, SAMPLES, PROMPT, NEW = 4, 16, 96, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    seconds = time.process_time if args.cpu_time else time.perf_counter

    tokenizer = train_tokenizer((row["text"] for row in world.rows("documents", "train", 500)), 512)
    model = build_model(args, tokenizer).to(args.device).eval()
    prompts = [torch.randint(20, 500, (PROMPT,)).tolist() for _ in range(PROMPTS)]
    for stopping in (False, True):
        engine = Engine(model, tokenizer, calculator=False)
        engine.stops = {tokenizer.eos_token_id} if stopping else set()
        model.generation_config.eos_token_id = tokenizer.eos_token_id if stopping else None
        ours, theirs = [], []
        for round_ in range(args.rounds + 1):
            ours.append(clock(seconds, with_engine, engine, prompts, round_))
            theirs.append(clock(seconds, with_generate, model, tokenizer, prompts))
        report(stopping, ours[1:], theirs[1:])  # the first round warms up


def build_model(args, tokenizer: PreTrainedTokenizerFast) -> NanoHFForCausalLM:
    config = NanoHFConfig.from_depth(
        args.depth, args.vocab_size, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model = NanoHFForCausalLM(config)  # its head is zero: every token would be as likely as any other
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight[:, 0] = torch.randperm(args.vocab_size) * (1e-3 / args.vocab_size)  # `generate` keeps ties
        model.lm_head.weight[tokenizer.eos_token_id, 0] = 2e-3  # always among the top k, as likely as the other 49
    return model


def with_engine(engine: Engine, prompts: list[list[int]], seed: int) -> int:
    groups = engine.generate(prompts, SAMPLES, NEW, temperature=1.0, top_k=50, seed=seed)
    return sum(len(c.ids) for group in groups for c in group)


def with_generate(model, tokenizer, prompts: list[list[int]]) -> int:
    ids = torch.tensor(prompts, device=model.device).repeat_interleave(SAMPLES, dim=0)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW,
        do_sample=True,
        top_k=50,
        temperature=1.0,
        pad_token_id=tokenizer.pad_token_id,
    )[:, PROMPT:]
    ended = (output == tokenizer.pad_token_id).long()
    if model.generation_config.eos_token_id is None:
        return output.numel()
    return int(torch.where(ended.any(-1), ended.argmax(-1), output.shape[1]).sum())


def clock(seconds, work, *arguments) -> float:
    """Tokens a second of work(*arguments), which returns how many it made."""
    started = seconds()
    tokens = work(*arguments)
    return tokens / (seconds() - started)


def report(stopping: bool, ours: list[float], theirs: list[float]) -> None:
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    name = "rows end at different lengths" if stopping else "no row stops"
    print(
        f"{name}: engine {statistics.median(ours):,.0f}, generate {statistics.median(theirs):,.0f} tokens/s, "
        f"ratio {ratio:.2f} (median of {len(ours)})",
        flush=True,
    )


if __name__ == "__main__":
    main()
