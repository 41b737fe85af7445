"""`nanohf chat`: talk to a model in the terminal, with its calculator."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from nanohf import console
from nanohf.errors import RecipeError
from nanohf.recipe.stage_names import MODEL_STAGES
from nanohf.runs import run_folder as runs
from nanohf.tokenizer.render import SHOWN


def chat(model: str, prompt: str | None, temperature: float, max_new_tokens: int) -> int:
    """Answers `prompt`, or what is typed until an empty line or Ctrl-D. Tokens appear as they are chosen."""
    source = last_stage(model)
    import torch
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from nanohf.data.word_problems import prompt_ids
    from nanohf.generation.engine import Engine
    from nanohf.model import NanoHFForCausalLM

    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        network: Any = NanoHFForCausalLM.from_pretrained(source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except OSError as error:
        raise RecipeError(f"{source} cannot be read: {str(error).strip().splitlines()[0]}") from error
    network.to(device)
    engine = Engine(network, tokenizer)
    room = network.config.max_position_embeddings - max_new_tokens
    if room < 64:
        most = network.config.max_position_embeddings - 64
        raise RecipeError(f"--max-new-tokens {max_new_tokens} leaves no room for a question; take at most {most}")

    ids: list[int] = []
    for turn, text in enumerate([prompt] if prompt else asked()):
        question = prompt_ids(tokenizer, [{"role": "user", "content": text}])
        ids = ids + question[1:] if ids and sys.stdin.isatty() else question  # one BOS per conversation
        if len(ids) > room:
            console.progress("(the beginning of the conversation is out of the model's sight)")
            ids = ids[:1] + ids[1:][1 - room :]
        stream = Stream(tokenizer)
        (completion,) = engine.generate([ids], 1, max_new_tokens, temperature, seed=turn, on_token=stream)[0]
        ids = ids + completion.ids + ([] if completion.finished else [tokenizer.eos_token_id])
        sys.stdout.write("\n")
        sys.stdout.flush()
    return 0


def last_stage(model: str) -> str:
    """A run's folder to the folder of its last trained stage; anything else stays what it is."""
    finished = [stage for stage in MODEL_STAGES if runs.done(model, stage)]
    if finished:
        return str(Path(model) / finished[-1])
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise RecipeError(f"{model} holds no finished stage and no model; run `nanohf run recipes/demo` first")
    if not Path(model).is_dir() and (model.startswith((".", "/", "runs/")) or model.count("/") != 1):
        raise RecipeError(f"{model}: no such folder, and not a Hub id (USER/NAME)")
    return model


def asked() -> Iterator[str]:
    """What is typed, until an empty line or Ctrl-D; piped, each line is a prompt of its own."""
    if not sys.stdin.isatty():
        yield from filter(None, map(str.strip, sys.stdin))
        return
    with suppress(EOFError):
        while text := input("> ").strip():
            yield text


class Stream:
    """Prints tokens as text as soon as they make whole characters; the calculator's blocks in brackets."""

    def __init__(self, tokenizer):
        self.tokenizer, self.pending = tokenizer, []

    def __call__(self, row: int, token: int, sampled: bool) -> None:
        special = self.tokenizer.convert_ids_to_tokens(token)
        if token in self.tokenizer.all_special_ids:
            sys.stdout.write(SHOWN[special].rstrip("\n"))
        else:
            self.pending.append(token)
            if not (text := self.tokenizer.decode(self.pending)).endswith("\ufffd"):
                sys.stdout.write(text)
                self.pending = []
        sys.stdout.flush()
