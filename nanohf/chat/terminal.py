"""`nanohf chat`: talk to a model in the terminal, with its calculator."""

import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from nanohf import console
from nanohf.data.hub_names import pretrained, split_revision
from nanohf.errors import RecipeError
from nanohf.recipe.stage_names import MODEL_STAGES
from nanohf.runs import run_folder as runs
from nanohf.runs.find_model import load_model, model_type
from nanohf.tokenizer.render import SHOWN


def chat(model: str, prompt: str | None, temperature: float, max_new_tokens: int) -> int:
    """Answers `prompt`; or each line of a pipe, independently; or what is typed until an empty line or Ctrl-D.

    Tokens appear as they are sampled. Returns the exit status: 2 if a line of a pipe could not be answered.

    Raises:
        RecipeError: no such model, or the prompt is too long for it.
        NanoHFError: the Hub cannot be reached.
    """
    source = last_stage(model)
    if (kind := model_type(source)) not in ("nanohf", "nanochat"):
        raise RecipeError(
            f"{source} is a {kind} model; nanohf chat knows the special tokens of nanohf and nanochat only"
        )
    new_session = sessions(source, max_new_tokens, temperature)
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # bytes that are not text, characters that the terminal does not have
    try:
        if prompt is not None:
            answer(new_session(), prompt)
        elif sys.stdin.isatty():
            talk(new_session())
        else:
            return answer_each(sys.stdin, new_session)
    except BrokenPipeError:  # whoever read the answers has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def sessions(source: str, max_new_tokens: int, temperature: float) -> Callable:
    """Loads the model, on the GPU if there is one. Returns what begins a conversation with it: `Session(seed=0)`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    import nanohf.model  # noqa: F401 for the Auto classes
    from nanohf.chat.session import Session
    from nanohf.generation.engine import Engine

    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = load_model(AutoModelForCausalLM, source)
    network.to(device)
    return partial(
        Session, Engine(network, AutoTokenizer.from_pretrained(**pretrained(source))), max_new_tokens, temperature
    )


def talk(session) -> None:
    """One conversation with whoever types, until an empty line or Ctrl-D."""
    while text := ask():
        try:
            answer(session, text)
        except RecipeError as error:
            console.warning(str(error))


def answer_each(lines: Iterable[str], new_session: Callable) -> int:
    """Each line alone, whatever stands before it; empty ones are left out. The exit status."""
    status = 0
    for number, line in enumerate(lines):
        if text := line.strip():
            try:
                answer(new_session(seed=number), text)
            except RecipeError as error:
                console.error(f"line {number + 1}: {error}")
                status = error.exit_status
    return status


def answer(session, text: str) -> None:
    """Prints the answer as it comes, and whether it was cut off."""
    completion = session.answer(text, Stream(session.engine.tokenizer))
    print(flush=True)
    if not completion.finished:
        console.progress(f"(cut off after {len(completion.ids)} tokens)")


def last_stage(model: str) -> str:
    """A run's folder to the folder of its last trained stage; anything else stays what it is."""
    finished = [stage for stage in MODEL_STAGES if runs.done(model, stage)]
    if finished:
        return str(Path(model) / finished[-1])
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise RecipeError(f"{model} holds no finished stage and no model; run `nanohf run recipes/demo` first")
    if not Path(model).is_dir() and (model.startswith((".", "/", "runs/")) or split_revision(model)[0].count("/") != 1):
        raise RecipeError(f"{model}: no such folder, and not a Hub id (USER/NAME, or USER/NAME@REVISION)")
    return model


def ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


class Stream:
    """Prints tokens as text as soon as they make whole characters; the calculator's blocks in brackets."""

    def __init__(self, tokenizer):
        self.tokenizer, self.pending = tokenizer, []

    def __call__(self, row: int, token: int, sampled: bool) -> None:
        special = self.tokenizer.convert_ids_to_tokens(token)
        if token in self.tokenizer.all_special_ids:
            sys.stdout.write(self.tokenizer.decode(self.pending) + SHOWN[special].rstrip("\n"))
            self.pending = []
        else:
            self.pending.append(token)
            if not (text := self.tokenizer.decode(self.pending)).endswith("\ufffd"):
                sys.stdout.write(text)
                self.pending = []
        sys.stdout.flush()
