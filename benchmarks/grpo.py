"""Seconds per GRPO step: our trainer with our rollout function against TRL's GRPOTrainer with its default generation.

    python benchmarks/grpo.py [--depth 4] [--vocab-size 4096] [--new 256] [--rounds 5] [--threads 2] [--device cpu]

64 rows (4 prompts x 16 samples) of prompts of 96 tokens, none of which stops before its last token, so that both do the
same work. The two train copies of one model in turn; but for the loss, all settings are the same. A step ends with
the optimizer's.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer

from nanohf.data import toy_world as world
from nanohf.data.word_problems import prompt_ids
from nanohf.generation.engine import Engine
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.tokenizer.train_bpe import train_tokenizer
from nanohf.train.grpo.rollout import rollout_func
from nanohf.train.grpo.trainer import PER_WORD_PROBLEM, WordProblemTrainer

PROMPTS, SAMPLES, PROMPT = 4, 16, 96


class StepTimer(TrainerCallback):
    """Seconds of the last step, by part. What is in none of the parts is `other`."""

    def __init__(self):
        self.parts = Counter()

    def watch(self, owner, method: str, part: str) -> None:
        """Counts what `owner.method` takes as `part`, less the parts that it calls."""
        work = getattr(owner, method)

        def timed(*args, **kwargs):
            started, before = time.perf_counter(), self.parts.total()
            result = work(*args, **kwargs)
            inside = self.parts.total() - before
            self.parts[part] += time.perf_counter() - started - inside
            return result

        setattr(owner, method, timed)

    def on_step_begin(self, args, state, control, **kwargs):
        self.parts.clear()
        self.started = time.perf_counter()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.optimizing = time.perf_counter()

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.parts["optimizer"] = time.perf_counter() - self.optimizing

    def on_step_end(self, args, state, control, **kwargs):
        self.parts["all"] = time.perf_counter() - self.started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, value in {"depth": 4, "vocab-size": 4096, "new": 256, "rounds": 5, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    disable_progress_bar()

    tokenizer = train_tokenizer((row["text"] for row in world.rows("documents", "train", 500)), 512)
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: make_trainer(args, tokenizer, folder, name == "ours") for name in ("ours", "default")}
        steps = {name: [] for name in trainers}
        for _ in range(args.rounds + 1):
            for name, (trainer, timer) in trainers.items():
                trainer.train()
                steps[name].append(dict(timer.parts))
                print(f"{name}: {timer.parts['all']:.2f} s, {timer.parts['generation']:.2f} of generation", flush=True)
    report({name: measured[1:] for name, measured in steps.items()})  # the first round warms up


def make_trainer(args, tokenizer, folder: str, ours: bool) -> tuple[GRPOTrainer, StepTimer]:
    model = build_model(args, tokenizer)
    settings = GRPOConfig(
        output_dir=folder,
        use_cpu=args.device == "cpu",
        bf16=False,
        activation_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=args.new,
        temperature=1.0,
        top_k=50,
        beta=0.0,
        scale_rewards="none",
        loss_type=PER_WORD_PROBLEM if ours else "bnpo",
        learning_rate=1e-6,
        max_steps=1,
    )
    trainer = (WordProblemTrainer if ours else GRPOTrainer)(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(prompts(tokenizer)),
        processing_class=tokenizer,
        reward_funcs=lambda completion_ids, **_: [float(ids[0] % 2) for ids in completion_ids],
        rollout_func=rollout_func(Engine(model, tokenizer, calculator=False), settings) if ours else None,
    )
    timer = StepTimer()
    timer.watch(trainer, "_generate", "generation")
    timer.watch(trainer, "compute_loss", "forward")
    timer.watch(trainer.accelerator, "backward", "backward")
    trainer.add_callback(timer)
    trainer.remove_callback(PrinterCallback)
    return trainer, timer


def build_model(args, tokenizer) -> NanoHFForCausalLM:
    """Random weights, the end tokens never among the top k."""
    torch.manual_seed(0)
    config = NanoHFConfig.from_depth(
        args.depth,
        args.vocab_size,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = NanoHFForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.05)
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight[[tokenizer.bos_token_id, tokenizer.eos_token_id], 0] = -2.0
    return model.to(args.device)


def prompts(tokenizer) -> list[dict]:
    """Questions of PROMPT tokens, template included."""
    rows, text = [], " ".join(row["text"] for row in world.rows("documents", "train", 200))
    words = iter(text.split(" "))
    while len(rows) < PROMPTS:
        question = next(words)
        while len(prompt_ids(tokenizer, chat := [{"role": "user", "content": question}])) < PROMPT:
            question += " " + next(words)
        if len(prompt_ids(tokenizer, chat)) == PROMPT:
            rows.append({"prompt": chat})
    return rows


def report(steps: dict[str, list[dict]]) -> None:
    for name, measured in steps.items():
        parts = {part: statistics.median(step[part] for step in measured) for part in measured[0]}
        other = parts["all"] - sum(seconds for part, seconds in parts.items() if part != "all")
        shown = ", ".join(f"{part} {seconds:.2f}" for part, seconds in parts.items() if part != "all")
        print(f"{name}: {parts['all']:.2f} s per step: {shown}, other {other:.2f}")
    ratio = statistics.median(a["all"] / b["all"] for a, b in zip(steps["ours"], steps["default"], strict=True))
    print(f"ratio {ratio:.2f} (median of {len(steps['ours'])})")


if __name__ == "__main__":
    main()
