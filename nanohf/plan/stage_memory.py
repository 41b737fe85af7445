"""Bytes at the peak of a recipe's stages, and what that means for a card: `nanohf plan recipes/d12 --hardware l4`."""

from dataclasses import dataclass, replace

from nanohf.recipe.loading import Recipe
from nanohf.recipe.stage_names import MODEL_STAGES
from nanohf.scaling.activations import MicroBatch, cache_bytes, micro_batch_bytes
from nanohf.scaling.cards import Card
from nanohf.scaling.memory import Bytes, memory
from nanohf.scaling.parameters import Parameters, num_attention_heads, parameters

PROMPT_TOKENS = 256  # of a grpo row, beside the completion: an assumption
UNPACKED = 1024  # tokens of a row without max_length: an assumption
LIBRARIES = 600_000_000  # bytes of a process with torch, transformers and TRL before it has a model


@dataclass(frozen=True)
class Size:
    """The recipe's model."""

    depth: int
    vocab_size: int
    preset: str
    heads: int

    @property
    def parameters(self) -> Parameters:
        return parameters(self.depth, self.vocab_size, self.preset, self.heads)

    @property
    def bytes(self) -> Bytes:
        return memory(self.parameters)["total"]

    def micro_batch(self, batch: MicroBatch) -> int:
        return micro_batch_bytes(self.parameters, self.depth, self.vocab_size, self.heads, batch)


def model_size(recipes: dict[str, Recipe]) -> Size | None:
    """From the recipes; None if they hold no pretraining, so that the model comes from elsewhere."""
    if "tokenizer" not in recipes or "pretrain" not in recipes:
        return None
    pretrain = recipes["pretrain"].settings
    heads = pretrain.num_attention_heads or num_attention_heads(pretrain.depth)
    return Size(pretrain.depth, recipes["tokenizer"].settings.vocab_size, pretrain.preset, heads)


def needed(size: Size, batch: MicroBatch, sequences: int) -> int:
    """Bytes at the peak of one process: its state, a micro-batch, what it generates, and the libraries."""
    return size.bytes.total + size.micro_batch(batch) + cache_bytes(size.depth, sequences, batch.length) + LIBRARIES


def work_of(stage: str, recipe: Recipe, bf16: bool) -> tuple[MicroBatch, int]:
    """A micro-batch of the stage, and how many sequences it generates at once. bf16: whether that is its `auto`."""
    args = recipe.training
    rows = args.per_device_train_batch_size
    length = PROMPT_TOKENS + args.max_completion_length if stage == "grpo" else args.max_length or UNPACKED
    wanted = getattr(args, "mixed_precision", "auto") if stage == "pretrain" else getattr(args, "bf16", None)
    in_bf16 = bf16 if wanted in ("auto", None) else wanted in ("bf16", True)
    checkpointing = bool(getattr(args, "activation_checkpointing", False))
    batch = MicroBatch(rows, length, in_bf16, bool(getattr(args, "torch_compile", False)), checkpointing)
    if stage != "grpo":
        return batch, 0
    return batch, recipe.step_batch.value * recipe.step_batch.completions


def card_lines(recipes: dict[str, Recipe], card: Card) -> list[str]:
    """For each stage the peak of one process, whether it fits with a tenth to spare, and how many rows would."""
    size = model_size(recipes)
    if size is None:
        return []
    lines = []
    for stage in (s for s in MODEL_STAGES if s in recipes):
        batch, sequences = work_of(stage, recipes[stage], bf16=True)
        mine = -(-sequences // card.count)

        def room(rows: int, batch=batch, mine=mine) -> bool:
            return needed(size, replace(batch, rows=rows), mine) <= 0.9 * card.bytes

        need = needed(size, batch, mine)
        most = max((2**n for n in range(12) if room(2**n)), default=0)
        verdict = "fits" if room(batch.rows) else "DOES NOT FIT"
        advice = f"up to {most:,} rows do" if most else "not even one row does"
        lines.append(
            f"{stage:<9}{need / 1e9:6.1f} GB  {batch.rows:,} rows x {batch.length:,} tokens: {verdict}; {advice}"
        )
    return lines
