"""Carries a model folder between nanohf and transformers' own NanoChatForCausalLM, which needs no remote code.

    nanohf convert runs/demo/sft out/demo-nanochat      # for servers that run no remote code
    nanohf convert some/nanochat-d32 runs/d32/base

The two are one architecture with the same weight names, so weights are carried bit by bit and in their own dtype. The
result is written beside the target, loaded from there, compared with the source, and renamed only if it agrees.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    NanoChatForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from nanohf.model import NanoHFForCausalLM

Kind = type[PreTrainedModel]

TOLERANCE = 1e-5  # on fp32 logits
PROBE_TEXT = "Tom has 3 boxes of 12 pens. <|user_start|> 3*12 = 36.\n\tÜber 1,000 naïve 数字 🙂"
FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "hidden_act",
    "rms_norm_eps",
    "rope_parameters",
    "final_logit_softcapping",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


def to_nanochat(source_dir: str | Path, target_dir: str | Path) -> None:
    """Writes the nanohf model of `source_dir` as a NanoChatForCausalLM with its tokenizer and generation config.

    One thing differs in further training: there, the embedding of `pad_token_id` gets no gradient.

    Raises:
        ValueError: the source is not a complete nanohf model, the target exists, or the two do not agree.
    """
    _convert(source_dir, target_dir, NanoHFForCausalLM, NanoChatForCausalLM)


def from_nanochat(source_dir: str | Path, target_dir: str | Path) -> None:
    """Writes the NanoChatForCausalLM of `source_dir` as a nanohf model with its tokenizer and generation config.

    Raises:
        ValueError: the source is not a complete NanoChat model or has what nanohf lacks, the target exists, or the two
            do not agree.
    """
    _convert(source_dir, target_dir, NanoChatForCausalLM, NanoHFForCausalLM)


def _convert(source_dir: str | Path, target_dir: str | Path, source_class: Kind, target_class: Kind) -> None:
    source = Path(source_dir)
    with written(Path(target_dir)) as partial:
        model = _load(source, source_class)
        converted = target_class._from_config(_map_config(model.config, target_class), dtype=model.dtype)
        converted.load_state_dict(model.state_dict())
        converted.generation_config = model.generation_config
        converted.save_pretrained(partial)
        for name in TOKENIZER_FILES:
            if (source / name).exists():
                shutil.copy2(source / name, partial / name)
        require_same_weights(model.state_dict(), partial)
        before = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
        require_same_logits(lambda ids, use_cache: before(ids, use_cache=use_cache).logits, partial)
        if (source / "tokenizer_config.json").exists():
            require_same_tokens(AutoTokenizer.from_pretrained(source), partial)


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """A folder to write in, beside `target`. It takes that name if the block ends well, and is gone otherwise.

    Raises:
        ValueError: the target exists.
    """
    if target.exists():
        raise ValueError(f"{target} exists. Choose another target, or remove it first.")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _load(source: Path, model_class: Kind) -> PreTrainedModel:
    """The model with every weight of the file and no other, in the file's dtype."""
    expected = model_class.config_class.model_type
    if not (source / "config.json").is_file():
        raise ValueError(f"{source} is not a model folder: it has no config.json.")
    found = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
    if found != expected:
        raise ValueError(f"{source} holds a model of type {found!r}, not {expected!r}.")
    loaded: tuple[PreTrainedModel, dict]
    loaded = model_class.from_pretrained(  # type: ignore[assignment]  # declared as the model alone
        source, dtype="auto", output_loading_info=True
    )
    model, info = loaded
    problems = [f"{kind}: {', '.join(sorted(map(str, keys)))}" for kind, keys in info.items() if keys]
    if problems:
        raise ValueError(f"the weights in {source} are not those of its config: {'; '.join(problems)}.")
    return model.eval()


def _map_config(config: PreTrainedConfig, model_class: Kind) -> PreTrainedConfig:
    """The same fields in the config of the other class. Raises with all that it cannot express."""
    config_class = model_class.config_class
    assert config_class is not None
    problems = []
    if getattr(config, "attention_bias", False):
        problems.append("attention_bias=True (nanohf has no biases)")
    if getattr(config, "attention_dropout", 0.0):
        problems.append(f"attention_dropout={config.attention_dropout} (nanohf has no dropout)")
    head_dim = config.hidden_size // config.num_attention_heads
    if getattr(config, "head_dim", head_dim) != head_dim:
        problems.append(f"head_dim={config.head_dim} (nanohf derives {head_dim} from hidden_size and heads)")
    if getattr(config, "quantization_config", None) is not None:
        problems.append("quantization_config (convert the full-precision model)")
    for field, classic in (
        ("value_embeddings", False),
        ("residual_scalars", False),
        ("backout", False),
        ("query_key_scale", 1.0),
        ("sliding_window", None),
    ):
        if (value := getattr(config, field, classic)) != classic:
            problems.append(f"{field}={value} (NanoChat is the classic preset)")
    if problems:
        raise ValueError(f"cannot be carried to {config_class.model_type}: {'; '.join(problems)}.")
    return config_class(**{field: getattr(config, field) for field in FIELDS})


def require_same_weights(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Bit by bit, and by the name under which they are found again."""
    found = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    changed = [name for name in weights.keys() | found.keys() if not _same(weights.get(name), found.get(name))]
    if changed:
        raise ValueError(f"weights changed on the way: {', '.join(sorted(changed))}.")


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b)


@torch.no_grad()
def require_same_logits(expected: Callable[[torch.Tensor, bool], torch.Tensor], folder: Path) -> None:
    """`expected(ids, use_cache)` and the folder loaded in fp32, on rows of random tokens, with a cache and without."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    window = getattr(model.config, "sliding_window", None) or 0
    length = min(window + 64, model.config.max_position_embeddings)
    ids = torch.randint(model.config.vocab_size, (4, length), generator=torch.Generator().manual_seed(0))
    for use_cache in (False, True):
        difference = (expected(ids, use_cache) - model(ids, use_cache=use_cache).logits).abs().max()
        if not difference <= TOLERANCE:  # also refuses NaN
            raise ValueError(f"logits differ by {difference:.1e} on a probe batch, more than {TOLERANCE:.0e}.")


def require_same_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    if tokenizer(PROBE_TEXT).input_ids != AutoTokenizer.from_pretrained(folder)(PROBE_TEXT).input_ids:
        raise ValueError("the tokenizer gives other ids for a probe text when loaded from the result.")
