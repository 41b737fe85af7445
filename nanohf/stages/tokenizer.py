"""Stage 1: train the tokenizer on the recipe's text.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.tokenizer \
        --config recipes/demo/tokenizer.yaml
"""

import time
from itertools import islice

from nanohf import console
from nanohf.data.sources import text_stream
from nanohf.errors import RecipeError
from nanohf.hardware.device import peak_memory
from nanohf.recipe.loading import Recipe, load_recipe
from nanohf.runs import run_folder as runs
from nanohf.runs.disk_full import disk_full_said
from nanohf.runs.lock import stage_lock
from nanohf.tokenizer.train_bpe import capped, measure, train_tokenizer
from nanohf.train.together import together

SENTENCE = "There is a lamp in the kitchen."  # as in model_cards/


def main(argv: list[str]) -> None:
    recipe = load_recipe("tokenizer", argv)
    with disk_full_said(recipe.run_dir), stage_lock(recipe.run_dir), together(recipe):
        if console.is_first():
            work(recipe)


def work(recipe: Recipe) -> None:
    config = recipe.settings
    started = time.perf_counter()
    runs.claim(recipe)

    stream = text_stream(config.dataset, "train", config.dataset_config, config.text_column, config.split)
    texts = (row["text"] for row in stream if row["text"])
    counted = Counted(capped(texts, config.max_chars, config.doc_cap))
    try:
        tokenizer = train_tokenizer(counted, config.vocab_size)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    console.progress(
        f"tokenizer: {config.vocab_size:,} tokens from {counted.chars:,} characters in {counted.texts:,} documents"
    )

    validation = text_stream(config.dataset, "validation", config.dataset_config, config.text_column, config.split)
    figures = measure(tokenizer, list(islice((row["text"] for row in validation if row["text"]), 200)))
    console.progress(f"on validation text: {figures['characters_per_token']:.2f} characters per token")

    measured = {
        "minutes": (time.perf_counter() - started) / 60,
        "characters": counted.chars,
        "peak_memory_bytes": peak_memory("cpu"),
        "vocab_size": config.vocab_size,
        "metric": "characters per token",
        "before": 1.0,
        "after": figures["characters_per_token"],
        **figures,
        "sample": "|".join(tokenizer.batch_decode([[i] for i in tokenizer.encode(SENTENCE, add_special_tokens=False)])),
    }
    runs.finish(recipe, measured, tokenizer.save_pretrained)


class Counted:
    """An iterable of texts that knows afterwards how much went through."""

    def __init__(self, texts):
        self.source, self.texts, self.chars = texts, 0, 0

    def __iter__(self):
        for text in self.source:
            self.texts += 1
            self.chars += len(text)
            yield text


if __name__ == "__main__":
    console.run_as_program(main)
