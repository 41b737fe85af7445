"""Trains the byte-level BPE tokenizer and measures it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL_TOKENS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)  # every byte and every special token

# GPT-4's split (cl100k_base of tiktoken) with digits in groups of 1-2 instead of 1-3, as nanochat does:
# a small vocabulary cannot afford a thousand numbers.
SPLIT = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
CHAT_TEMPLATE = Path(__file__).parent / "chat_template.jinja"


def train_tokenizer(texts: Iterable[str], vocab_size: int, model_max_length: int = 2048) -> PreTrainedTokenizerFast:
    """Byte-level BPE of exactly `vocab_size` tokens, the nine special ones among them, with the chat template.

    Raises:
        ValueError: vocab_size below 265, or a text too small and uniform to find that many merges.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"vocab_size={vocab_size} is smaller than 256 bytes + {len(SPECIAL_TOKENS)} special tokens = "
            f"{SMALLEST_VOCABULARY}. Choose at least 320, a multiple of 64."
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if (found := backend.get_vocab_size()) < vocab_size:
        raise ValueError(
            f"the text gives only {found} tokens, vocab_size={vocab_size} wants more. "
            f"Use more text or vocab_size={max(SMALLEST_VOCABULARY, found // 64 * 64)}."
        )
    return wrap(backend, model_max_length)


def wrap(backend: Tokenizer, model_max_length: int) -> PreTrainedTokenizerFast:
    """A BPE that has the special tokens, as a transformers tokenizer: BOS in front, chat template, padding left."""
    bos = SPECIAL_TOKENS[0]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token="<|assistant_end|>",
        pad_token="<|assistant_end|>",  # as eos, so that generate() never guesses a mask from padding
        extra_special_tokens=[t for t in SPECIAL_TOKENS if t not in (bos, "<|assistant_end|>")],
        padding_side="left",
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE.read_text(encoding="utf-8"),
    )


def capped(texts: Iterable[str], max_chars: int, doc_cap: int = 10_000) -> Iterator[str]:
    """The first `max_chars` characters of the texts, each cut at `doc_cap` characters (nanochat's rule)."""
    for text in texts:
        yield (text := text[: min(doc_cap, max_chars)])
        max_chars -= len(text)
        if max_chars <= 0:
            return


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Raw bytes of each token id, special tokens 0: what bits per byte divides by."""
    special = set(tokenizer.all_special_ids)
    # In the byte-level alphabet one character stands for one byte.
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [0 if i in special else len(token) for i, token in enumerate(tokens)]


def encode_documents(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """Each text as ids after one BOS. Special tokens spelled out in a text stay text."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()  # which an earlier tokenizer(..., padding=True) would have left on
    backend.no_truncation()
    before, backend.encode_special_tokens = backend.encode_special_tokens, True
    try:
        encoded = backend.encode_batch_fast(texts, add_special_tokens=False)
    finally:
        backend.encode_special_tokens = before
    return [[tokenizer.bos_token_id, *e.ids] for e in encoded]


def measure(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> dict[str, float]:
    """Characters and bytes per token on the texts, and whether every text comes back unchanged."""
    ids = encode_documents(tokenizer, texts)
    tokens = sum(len(i) - 1 for i in ids)
    return {
        "characters_per_token": sum(map(len, texts)) / tokens,
        "bytes_per_token": sum(len(t.encode()) for t in texts) / tokens,
        "round_trip": float(all(tokenizer.decode(i[1:]) == t for i, t in zip(ids, texts, strict=True))),
    }
