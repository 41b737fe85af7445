"""`nanohf convert SOURCE TARGET`: what lies in SOURCE tells which way it goes."""

import json
from pathlib import Path

from nanohf import console
from nanohf.convert.nanochat_checkpoint import from_checkpoint
from nanohf.convert.nanochat_model import TOLERANCE, from_nanochat, to_nanochat
from nanohf.convert.tiktoken_encoding import from_tiktoken
from nanohf.errors import RecipeError


def convert(source_dir: str, target_dir: str, to: str | None = None) -> int:
    """nanohf to NanoChatForCausalLM; that, or a checkpoint of nanochat itself, to nanohf. The exit status."""
    source = Path(source_dir)
    config = source / "config.json"
    try:
        if not config.exists() and any(source.glob("model_*.pt")):
            if to == "nanochat":
                raise ValueError(f"{source} is a checkpoint of nanochat itself. Convert it to nanohf first.")
            from_checkpoint(source, target_dir, from_tiktoken(_pickle_of(source)))
        elif (to or _other_kind(config)) == "nanochat":
            to_nanochat(source, target_dir)
        else:
            from_nanochat(source, target_dir)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    console.result(f"{target_dir}: weights bit-exact, logits within {TOLERANCE:.0e} of {source_dir}")
    return 0


def _other_kind(config: Path) -> str:
    model_type = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None
    return "nanochat" if model_type == "nanohf" else "nanohf"


def _pickle_of(checkpoint: Path) -> Path:
    """Beside the checkpoint, or where nanochat writes it: CACHE/tokenizer, for CACHE/chatsft_checkpoints/d20."""
    places = [folder / "tokenizer.pkl" for folder in (checkpoint, checkpoint.resolve().parent.parent / "tokenizer")]
    for path in places:
        if path.is_file():
            return path
    raise ValueError(f"{checkpoint} has no tokenizer: neither {places[0]} nor {places[1]} exists. Copy it there.")
