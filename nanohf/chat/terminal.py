"""`nanohf chat`: talk to a model in the terminal, with its calculator."""

import sys
from pathlib import Path

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
    network = NanoHFForCausalLM.from_pretrained(source, dtype=torch.float32).to(device)
    tokenizer = AutoTokenizer.from_pretrained(source)
    engine = Engine(network, tokenizer)
    room = network.config.max_position_embeddings - max_new_tokens
    if room < 64:
        most = network.config.max_position_embeddings - 64
        raise RecipeError(f"--max-new-tokens {max_new_tokens} leaves no room for a question; take at most {most}")

    ids: list[int] = []
    turn = 0
    while text := prompt if turn == 0 and prompt else "" if prompt else ask():
        question = prompt_ids(tokenizer, [{"role": "user", "content": text}])
        ids += question if not ids else question[1:]  # one BOS a conversation
        ids = ids[:1] + ids[1:][1 - room :]  # what the model can see, behind its BOS
        stream = Stream(tokenizer)
        (completion,) = engine.generate([ids], 1, max_new_tokens, temperature, seed=turn, on_token=stream)[0]
        ids += completion.ids
        turn += 1
        print()
    return 0


def last_stage(model: str) -> str:
    """A run's folder to the folder of its last trained stage; anything else stays what it is."""
    finished = [stage for stage in MODEL_STAGES if runs.done(model, stage)]
    if finished:
        return str(Path(model) / finished[-1])
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise RecipeError(f"{model} holds no finished stage and no model; run `nanohf run recipes/demo` first")
    if not Path(model).is_dir() and (model.startswith((".", "/", "runs/")) or model.count("/") != 1):
        raise RecipeError(f"{model} is no folder and no Hub id (USER/NAME)")
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
            sys.stdout.write(SHOWN[special].rstrip("\n"))
        else:
            self.pending.append(token)
            if not (text := self.tokenizer.decode(self.pending)).endswith("\ufffd"):
                sys.stdout.write(text)
                self.pending = []
        sys.stdout.flush()
