"""The model as a guest: what transformers' Trainer and peft do with it, without a line of ours."""

import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import Trainer, TrainingArguments

SMOOTHING = 0.2


def by_hand(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Cross-entropy with the next token, a share of its weight spread over the vocabulary; -100 is left out."""
    nats = []
    for row, wanted in zip(logits.double().log_softmax(-1), labels, strict=True):
        for at in range(len(wanted) - 1):
            if (token := wanted[at + 1]) != -100:
                nats.append(-(1 - SMOOTHING) * row[at, token] - SMOOTHING * row[at].mean())
    return torch.stack(nats).mean().item()


@pytest.fixture
def rows():
    ids = torch.randint(1, 128, (4, 12), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :3] = -100
    labels[1, 8:] = -100
    return ids, labels


def first_loss(model, rows, tmp_path) -> float:
    """What a plain Trainer logs for its first step over all rows."""
    ids, labels = rows
    arguments = TrainingArguments(
        tmp_path / "out",
        label_smoothing_factor=SMOOTHING,
        per_device_train_batch_size=4,
        max_steps=2,
        logging_steps=1,
        learning_rate=1e-3,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    data = [{"input_ids": i, "labels": wanted} for i, wanted in zip(ids, labels, strict=True)]
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    return trainer.state.log_history[0]["loss"]


@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "peft"])
def test_label_smoothing_is_of_the_next_token(small_model, rows, tmp_path, adapted):
    model = small_model()
    with torch.no_grad():
        expected = by_hand(model(rows[0]).logits, rows[1])
    if adapted:
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    assert first_loss(model, rows, tmp_path) == pytest.approx(expected, abs=2e-4)  # it logs four places


REMOTE = """
import sys
sys.modules["nanohf"] = None
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
folder, sent = sys.argv[1], torch.load(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
trainer = Trainer(model, TrainingArguments(folder + "/out", label_smoothing_factor=0.2, use_cpu=True, report_to="none"))
print(trainer.compute_loss(model, {"input_ids": sent["ids"], "labels": sent["labels"]}).item())
AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)  # a second time, now that it is entered
"""


@pytest.mark.slow
def test_label_smoothing_of_remote_code(small_model, rows, tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    torch.save({"ids": rows[0], "labels": rows[1]}, tmp_path / "rows.pt")
    done = subprocess.run(
        [sys.executable, "-c", REMOTE, str(tmp_path), str(tmp_path / "rows.pt")],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert float(done.stdout) == pytest.approx(by_hand(model(rows[0]).logits, rows[1]), abs=1e-5)


def test_prompt_tuning(small_model, tmp_path):
    """Only the soft prompt learns, and it learns; saved and loaded it says the same, also token by token."""
    model = small_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    torch.manual_seed(0)
    tuned = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    optimizer = torch.optim.Adam([p for p in tuned.parameters() if p.requires_grad], lr=0.1)
    ids = torch.randint(1, 128, (2, 12))
    losses = []
    for _ in range(10):
        losses.append(tuned(input_ids=ids, labels=ids).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())

    tuned.save_pretrained(tmp_path / "prompt")
    loaded = PeftModel.from_pretrained(small_model(), tmp_path / "prompt").eval()
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        assert torch.equal(loaded(**text).logits, tuned.eval()(**text).logits)
        said = loaded.generate(**text, max_new_tokens=5, do_sample=False)
        for at in range(12, 17):  # without a cache
            whole = said[:, :at]
            logits = loaded(input_ids=whole, attention_mask=torch.ones_like(whole)).logits
            assert torch.equal(logits[:, -1].argmax(-1), said[:, at])


def test_prompt_tuning_of_modern_is_refused_with_the_way_round(small_model):
    tuned = get_peft_model(
        small_model(value_embeddings=True), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    )
    with pytest.raises(ValueError, match="Prompt tuning and the like take the classic preset, or LoRA"):
        tuned(input_ids=torch.randint(1, 128, (2, 12)))
