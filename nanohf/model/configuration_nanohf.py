"""The configuration of nanohf's GPT: plain fields, and `from_depth`, which derives them from one number."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

FULL, SLIDING = "full_attention", "sliding_attention"
MODERN = {"value_embeddings": True, "residual_scalars": True}  # what paid at depth 4 (benchmarks/RESULTS.md)


@strict
class NanoHFConfig(PreTrainedConfig):
    """Fields are transformers' usual ones; the defaults are depth 20 with 65,536 tokens, 560,988,160 parameters.

    The architecture is nanochat's of 2025-11 (https://github.com/karpathy/nanochat): rotary positions, RMSNorm without
    weights (also right after the embedding, and on queries and keys), squared ReLU, no biases, untied embedding and
    head, logits capped at `final_logit_softcapping`. The fields below `tie_word_embeddings` are what nanochat added
    by 2026-07; their defaults leave them out.

    Args:
        value_embeddings: every second layer, the last one included, adds gate · E[token] to its values, with a table E
            of its own and a gate in (0, 3) for each key/value head.
        residual_scalars: a layer reads a·x + b·x0, where x0 is the normalised embedding and a, b are learnt.
        backout: a learnt share of the residual at half depth is taken out again before the final norm.
        query_key_scale: factor of the normalised queries and keys.
        layer_types: "full_attention" or "sliding_attention" for each layer; None: all full.
        sliding_window: tokens that a sliding layer sees, its own included.
    """

    model_type = "nanohf"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 65536
    hidden_size: int = 1280
    intermediate_size: int | None = None
    num_hidden_layers: int = 20
    num_attention_heads: int = 10
    num_key_value_heads: int | None = None
    max_position_embeddings: int = 2048
    hidden_act: str = "relu2"
    rms_norm_eps: float = 1e-6
    rope_parameters: dict | None = None
    final_logit_softcapping: float | None = 15.0
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = False
    value_embeddings: bool = False
    residual_scalars: bool = False
    backout: bool = False
    query_key_scale: float = 1.0
    layer_types: list[str] | None = None
    sliding_window: int | None = None

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must divide hidden_size={self.hidden_size} into an "
                "even head size (rotary positions turn pairs of channels)"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads={self.num_key_value_heads} must divide "
                f"num_attention_heads={self.num_attention_heads}"
            )
        if self.layer_types is None:
            self.layer_types = [FULL] * self.num_hidden_layers
        if SLIDING in self.layer_types and not self.sliding_window:
            raise ValueError("layer_types has sliding_attention: set sliding_window, the tokens such a layer sees")
        super().__post_init__(**kwargs)
        # Only the class that is saved enters auto_map by itself; a checkpoint shall load through all three. Set last:
        # what was loaded from the Hub names its repository there, and its fine-tuned copy shall not depend on that.
        self.auto_map = {
            "AutoConfig": "configuration_nanohf.NanoHFConfig",
            "AutoModel": "modeling_nanohf.NanoHFModel",
            "AutoModelForCausalLM": "modeling_nanohf.NanoHFForCausalLM",
        }

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def has_value_embedding(self, layer_idx: int) -> bool:
        return self.value_embeddings and (self.num_hidden_layers - 1 - layer_idx) % 2 == 0

    @classmethod
    def from_depth(cls, depth: int, vocab_size: int = 65536, preset: str = "classic", **fields) -> "NanoHFConfig":
        """The model of `depth` layers: hidden_size = 64·depth, heads of about 128 channels.

        Args:
            depth: number of layers, at least 1. Parameters are 2·V·C + 12·depth·C² with C = 64·depth; `modern` adds
                V·C for each layer with value embeddings, which are every second.
            vocab_size: V, rows of the embedding and of the head.
            preset: "classic" (nanochat of 2025-11) or "modern"; defaults of plain fields, nothing else.
            fields: any other field, which wins over the derived value.

        Raises:
            ValueError: depth < 1, or an unknown preset.
        """
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        if preset not in ("classic", "modern"):
            raise ValueError(f"preset={preset!r} must be 'classic' or 'modern'")
        hidden_size = 64 * depth
        heads = max(1, (hidden_size + 127) // 128)
        while hidden_size % heads or (hidden_size // heads) % 2:
            heads += 1
        derived = {"hidden_size": hidden_size, "num_hidden_layers": depth, "num_attention_heads": heads}
        if preset == "modern":
            derived |= MODERN
        return cls(vocab_size=vocab_size, **(derived | fields))
