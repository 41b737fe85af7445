"""What the doctor asks of TRL's trainer: the loss it computes, the rows it packs, the rows that could give NaN."""

import copy
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import PreTrainedModel
from trl import SFTTrainer

from nanohf.data.mixture import conversation_rows

LOUD = 20.0  # largest logit of a probe: large enough that a cap which is missing shows


class Probed(SFTTrainer):
    """TRL's trainer with what it always has here."""

    model: PreTrainedModel
    train_dataset: Dataset


def chat_trainer(model, tokenizer, args, conversations: Dataset, folder: str) -> Probed:
    """The trainer of the sft stage on a few conversations, which writes nothing but into `folder`."""
    args = copy.copy(args)
    rows, _ = conversation_rows(tokenizer, conversations, args)
    args.assistant_only_loss = False  # the rows bring their labels
    args.output_dir, args.report_to, args.eval_strategy, args.save_strategy = folder, [], "no", "no"
    return Probed(model=model, args=args, train_dataset=rows, processing_class=tokenizer)


@dataclass(frozen=True)
class Loss:
    trainer: float
    model: float

    @property
    def difference(self) -> float:
        return abs(self.trainer - self.model) / max(1e-6, abs(self.model))


@dataclass(frozen=True)
class Leak:
    """How far logits of a document move when the one before it in the same row is changed, against their scale."""

    documents: int  # in the row; below 2 there was nothing to measure
    tokens: int = 0
    moved: float = 0.0


def trained_shares(trainer: Probed) -> tuple[int, int]:
    """Tokens that the trainer's labels train on, and all tokens."""
    labels = trainer.train_dataset["labels"]
    return sum(label != -100 for row in labels for label in row), sum(map(len, labels))


def loss_of_both(trainer: Probed, rows: int = 2) -> Loss:
    """The trainer's loss of one batch, which never sees the model's logits, and the loss of the model's own logits."""
    batch = collate(trainer, [trainer.train_dataset[i] for i in range(min(rows, len(trainer.train_dataset)))])
    with loud(trainer.model, batch), torch.no_grad():
        computed = trainer.compute_loss(trainer.model, dict(batch)).item()
        logits = trainer.model(**inputs(batch)).logits[:, :-1].float()
        own = F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100)
    return Loss(computed, own.item())


def leak(trainer: Probed) -> Leak:
    """Changes the first whole document of a packed row and looks at the logits of the next one.

    Documents begin with BOS, whatever the packing; position_ids and masks come from the trainer's own collator.
    """
    bos = trainer.processing_class.bos_token_id
    packed = max(trainer.train_dataset, key=lambda row: row["input_ids"].count(bos))
    starts = [i for i, token in enumerate(packed["input_ids"]) if token == bos]
    if len(starts) < 2:
        return Leak(len(starts))
    first, second = starts[0], starts[1]
    end = starts[2] if len(starts) > 2 else len(packed["input_ids"])
    batch = collate(trainer, [packed])
    ids = batch["input_ids"].clone()
    size = trainer.model.config.vocab_size
    ids[0, first + 1 : second] = (ids[0, first + 1 : second] + size // 2) % size
    with loud(trainer.model, batch), torch.no_grad():
        before = trainer.model(**inputs(batch)).logits[0, second:end].float()
        after = trainer.model(**inputs(batch) | {"input_ids": ids}).logits[0, second:end].float()
    return Leak(len(starts), end - second, ((after - before).abs().max() / before.abs().max().clamp(min=1e-6)).item())


def loss_of_row(trainer: Probed, ids: list[int], labels: list[int]) -> tuple[float, float]:
    """The trainer's loss of one row alone, and its gradient's norm."""
    batch = collate(trainer, [{"input_ids": ids, "labels": labels}])
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    norms = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
    trainer.model.zero_grad()
    return loss.item(), torch.stack(norms).norm().item()


def collate(trainer: Probed, rows: list[dict]) -> dict:
    return trainer._prepare_inputs(trainer.data_collator(rows))


def inputs(batch: dict) -> dict:
    return {key: value for key, value in batch.items() if key != "labels"} | {"use_cache": False}


def waken(model) -> None:
    """Random values for matrices that are still all zero: what is multiplied by 0 can neither leak nor be capped."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and not parameter.any():
                noise = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
                parameter.copy_(noise)


@contextmanager
def loud(model, batch: dict):
    """For a while the head is scaled so that the largest logit before any cap is LOUD."""
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        hidden = model.base_model(**inputs(batch)).last_hidden_state
        factor = LOUD / max(1e-6, (hidden.float() @ head.float().T).abs().max().item())
        head.mul_(factor)
        try:
            yield
        finally:
            head.div_(factor)
