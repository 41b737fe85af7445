"""GRPO's gradient is nanochat's: a mean over word problems, however a generation is split."""

import json
import os
import subprocess
import sys
from itertools import islice
from types import SimpleNamespace

import loss_case
import pytest
import torch
from small_run import ROOT

from nanohf.data.word_problems import prompt_ids
from nanohf.train.grpo.loss_weights import word_problem_weights


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def log_probs(model, weights: dict, prompt: list[int], completion: list[int]) -> torch.Tensor:
    logits = torch.func.functional_call(model, weights, (torch.tensor([prompt + completion]),)).logits
    return logits[0, len(prompt) - 1 : -1].log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


def source_loss(log_probs, word_problems: list[int], token_loss=lambda logp, advantage, *_: -logp * advantage):
    """nanochat's, with all samples of a word problem in one micro-batch."""
    loss = 0.0
    for word_problem in word_problems:
        samples = loss_case.group(word_problem)
        valid = sum(sum(mask) for _, mask, _ in samples)
        mean = sum(reward for *_, reward in samples) / len(samples)
        for completion, mask, reward in samples:
            losses = token_loss(log_probs(word_problem, completion), reward - mean, word_problem, completion)
            loss = loss + (losses * torch.tensor(mask)).sum() / valid
    return loss / len(word_problems)


def expected(trainer, weights: dict, word_problems: list[int], *token_loss) -> dict:
    """The source's gradient at these weights."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    weights = {name: p.clone().requires_grad_() for name, p in weights.items()}

    def logp(word_problem: int, completion: list[int]) -> torch.Tensor:
        prompt = prompt_ids(trainer.processing_class, loss_case.prompt(word_problem))
        return log_probs(model, weights, prompt, completion)

    loss = source_loss(logp, word_problems, *token_loss)
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def distance(found: dict, wanted: dict) -> float:
    """Of two gradients, relative to the second."""
    assert found.keys() == wanted.keys()
    apart = sum((found[name] - wanted[name]).double().square().sum() for name in wanted)
    return (apart / sum(t.double().square().sum() for t in wanted.values())).sqrt().item()


def drawn(trainer, generations: int) -> list[int]:
    return [p for generation in islice(trainer.order.generations(), generations) for p in generation]


SPLITS = {
    "one micro-batch of four word problems": (16, 1, None),
    "micro-batches of two word problems": (8, 2, None),
    "micro-batches of half a group": (2, 8, None),
    "micro-batches of one completion": (1, 16, None),
    "two generations per step": (8, 2, 1),
}


@pytest.mark.parametrize(("rows", "accumulation", "per_generation"), SPLITS.values(), ids=SPLITS)
def test_the_gradient_is_the_sources(folder, rows, accumulation, per_generation):
    trainer, ((weights, gradients),) = loss_case.train(
        folder,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=per_generation,
    )
    word_problems = drawn(trainer, accumulation // (per_generation or accumulation))
    assert len(word_problems) == 4
    lengths = [sum(sum(mask) for _, mask, _ in loss_case.group(p)) for p in word_problems]
    assert max(lengths) > 3 * min(lengths)
    assert distance(gradients, expected(trainer, weights, word_problems)) < 1e-5


def test_a_generation_that_serves_two_steps(folder):
    """Without a learning rate the mean of their gradients is that of one step."""
    trainer, steps = loss_case.train(
        folder, per_device_train_batch_size=4, gradient_accumulation_steps=2, steps_per_generation=4, max_steps=2
    )
    mean = {name: sum(gradients[name] for _, gradients in steps) / 2 for name in steps[0][1]}
    assert distance(steps[0][1], mean) > 0.1
    assert distance(mean, expected(trainer, steps[0][0], drawn(trainer, 1))) < 1e-5


@pytest.mark.slow
def test_two_processes(folder):
    """The last settings give each process one and a half groups."""
    settings = [
        {"per_device_train_batch_size": 8},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 6},
    ]
    config, script = ROOT / "accelerate_configs/ddp.yaml", loss_case.__file__
    options = ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0"]
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(config), *options]
    done = subprocess.run(
        [sys.executable, *launch, script, str(folder), *map(json.dumps, settings)],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    ranks = [torch.load(folder / f"found-{rank}.pt", weights_only=True) for rank in range(2)]
    for i, case in enumerate(settings):
        rows = 2 * case["per_device_train_batch_size"] * case.get("gradient_accumulation_steps", 1)
        trainer, ((weights, one),) = loss_case.train(folder, per_device_train_batch_size=rows)
        wanted = expected(trainer, weights, drawn(trainer, 1))
        for found in ranks:
            assert found[i]["world_size"] == 2
            assert distance(found[i]["gradients"], wanted) < 1e-5
        assert distance(one, wanted) < 1e-5


def test_adapters(folder):
    lora = {"use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_target_modules": ["all-linear"]}
    trainer, ((weights, gradients),) = loss_case.train(
        folder, SimpleNamespace(**lora), noise=0.1, per_device_train_batch_size=8, gradient_accumulation_steps=2
    )
    assert all("lora_" in name for name in gradients)
    assert distance(gradients, expected(trainer, weights, drawn(trainer, 1))) < 1e-5


def test_the_kl_term_is_weighted_likewise(folder):
    trainer, ((weights, gradients),) = loss_case.train(
        folder, noise=0.05, beta=0.3, per_device_train_batch_size=8, gradient_accumulation_steps=2
    )
    reference = dict(trainer.ref_model.named_parameters())

    def with_kl(logp, advantage, word_problem, completion):
        prompt = prompt_ids(trainer.processing_class, loss_case.prompt(word_problem))
        gap = log_probs(trainer.model, reference, prompt, completion).detach() - logp
        ratio = (logp - logp.detach()).exp()  # 1, with a gradient: TRL's use_bias_correction_kl
        return -logp * advantage + 0.3 * (gap.exp() - gap - 1) * ratio

    wanted = expected(trainer, weights, drawn(trainer, 1), with_kl)
    assert distance(gradients, wanted) < 1e-5
    assert distance(expected(trainer, weights, drawn(trainer, 1)), wanted) > 0.1


def test_clipping(folder):
    """In a second iteration over the same completions the ratios bite."""
    trainer, ((old, _), (weights, gradients)) = loss_case.train(
        folder, lr=2.0, num_iterations=2, max_steps=2, per_device_train_batch_size=8, gradient_accumulation_steps=2
    )
    clipped = []

    def surrogate(logp, advantage, word_problem, completion):
        prompt = prompt_ids(trainer.processing_class, loss_case.prompt(word_problem))
        ratio = (logp - log_probs(trainer.model, old, prompt, completion).detach()).exp()
        bounded = ratio.clamp(0.8, 1.2)
        clipped.append((ratio != bounded).float().mean())
        return -torch.min(ratio * advantage, bounded * advantage)

    wanted = expected(trainer, weights, drawn(trainer, 1), surrogate)
    assert 0.02 < sum(clipped) / len(clipped) < 0.98
    assert distance(gradients, wanted) < 1e-5


def test_other_losses_are_trls(folder):
    """One micro-batch of four word problems: dapo and bnpo pool their tokens."""
    found = {
        loss: loss_case.train(folder, loss_type=loss, per_device_train_batch_size=16)[1][0][1]
        for loss in ("dapo", "bnpo", loss_case.PER_WORD_PROBLEM)
    }
    assert distance(found["dapo"], found["bnpo"]) < 1e-5
    assert distance(found["dapo"], found[loss_case.PER_WORD_PROBLEM]) > 0.1


def test_cut_off_completions_can_be_left_out(folder):
    """None of these has an end: nothing is left to train on."""
    trainer, ((_, gradients),) = loss_case.train(
        folder, mask_truncated_completions=True, per_device_train_batch_size=8, gradient_accumulation_steps=2
    )
    assert [log["completions/clipped_ratio"] for log in trainer.state.log_history if "reward" in log] == [1.0]
    assert not any(gradient.any() for gradient in gradients.values())


def test_weights_of_word_problems_without_a_sampled_token():
    weights, total = word_problem_weights(torch.tensor([0, 0, 3, 1]), 2)
    assert weights.isfinite().all()
    assert (weights[2], total) == (1, 8)
