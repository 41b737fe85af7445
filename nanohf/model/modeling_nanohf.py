"""nanohf's GPT as a PreTrainedModel. Needs torch, transformers and its sibling file only: it travels to the Hub."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_masks_for_generate
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_nanohf import SLIDING, NanoHFConfig

VALUE_GATE_CHANNELS = 12  # of the layer's input that decide how much of the value embedding is added
QUERY_BLOCK = 256
TAG = "_nanohf_init"  # on a leaf whose first weights differ, see _init_weights


def rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm over the last dimension, without a weight (arXiv 1910.07467)."""
    return F.rms_norm(x, (x.shape[-1],), eps=eps)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns the pairs (x[i], x[i + head_dim/2]) by −θ, as nanochat does (the textbook turns by +θ).

    x: (batch, heads, seq, head_dim); cos, sin: (batch, 1, seq, head_dim), sin negative in the second half.
    """
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


def eager_attention(module, query, key, value, attention_mask, scaling, **kwargs):
    """The reference implementation. query: (batch, heads, seq, head_dim); key, value: with key/value heads."""
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights  # (batch, seq, heads, head_dim)


def can_be_blocked(query: torch.Tensor, key: torch.Tensor, attention_mask: torch.Tensor | None) -> bool:
    """On a CPU, rows short enough to hold their attention weights, without a cache or a float mask."""
    return (
        query.device.type == "cpu"
        and query.shape[2] == key.shape[2] <= 1024
        and (attention_mask is None or attention_mask.dtype == torch.bool)
    )


def blocked_attention(module, query, key, value, attention_mask, scaling, **kwargs):
    """What replaces SDPA when training on a CPU: causal attention by matrix products over blocks of queries.

    Against torch 2.13's CPU kernel, forward and backward at 8 x 512, 2 heads of 128: 3.0x in bf16, 1.3x in fp32. It
    holds half of the (seq, seq) weights of every head for the backward pass. Same arguments as `eager_attention`.
    """
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    query, seq = query * scaling, query.shape[2]
    allowed = attention_mask
    if allowed is None:
        allowed = torch.ones(seq, seq, dtype=torch.bool, device=query.device).tril()
    bias = torch.zeros(allowed.shape, dtype=query.dtype).masked_fill_(~allowed, torch.finfo(query.dtype).min)
    outputs = []
    for start in range(0, seq, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, seq)
        scores = query[:, :, start:end] @ key[:, :, :end].transpose(2, 3) + bias[..., start:end, :end]
        outputs.append(F.softmax(scores, dim=-1) @ value[:, :, :end])
    return torch.cat(outputs, dim=2).transpose(1, 2), None  # (batch, seq, heads, head_dim)


class NanoHFRotaryEmbedding(nn.Module):
    """cos and sin of position · inv_freq. The name and `original_inv_freq` make transformers rebuild the buffers."""

    inv_freq: torch.Tensor

    def __init__(self, config: NanoHFConfig):
        super().__init__()
        assert config.rope_parameters is not None  # the config has filled in what was left out, here and below
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings  # for "dynamic"
        rope_init = ROPE_INIT_FUNCTIONS.get(self.rope_type, self.compute_default_rope_parameters)
        inv_freq, self.attention_scaling = rope_init(config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    def _apply(self, fn, recurse=True):
        """`model.to(torch.bfloat16)` moves inv_freq but must not round it: by position 500 angles would be off by 1."""

        def move(buffer: torch.Tensor) -> torch.Tensor:
            moved = fn(buffer)
            return moved if moved.dtype == buffer.dtype else buffer.to(moved.device)

        return super()._apply(move, recurse)

    @staticmethod
    def compute_default_rope_parameters(config: NanoHFConfig, **kwargs) -> tuple[torch.Tensor, float]:
        assert config.rope_parameters is not None
        channels = torch.arange(0, config.head_dim, 2, dtype=torch.float)
        return 1.0 / config.rope_parameters["rope_theta"] ** (channels / config.head_dim), 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[:, None, :, None].float() * self.inv_freq  # (batch, 1, seq, head_dim / 2)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return torch.cat((cos, cos), dim=-1).to(x.dtype), torch.cat((sin, -sin), dim=-1).to(x.dtype)


class NanoHFAttention(nn.Module):
    def __init__(self, config: NanoHFConfig, layer_idx: int):
        super().__init__()
        assert config.num_key_value_heads is not None
        assert config.layer_types is not None
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        self.q_proj = nn.Linear(config.hidden_size, config.num_attention_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.num_key_value_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.num_key_value_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * self.head_dim, config.hidden_size, bias=False)
        setattr(self.o_proj, TAG, "zeros")
        self.sliding_window = config.sliding_window if config.layer_types[layer_idx] == SLIDING else None
        self.value_embedding = None
        if config.has_value_embedding(layer_idx):
            self.value_embedding = nn.Embedding(config.vocab_size, config.num_key_value_heads * self.head_dim)
            setattr(self.value_embedding, TAG, "value")
            self.value_gate = nn.Linear(VALUE_GATE_CHANNELS, config.num_key_value_heads, bias=False)
            setattr(self.value_gate, TAG, "gate")

    def forward(
        self,
        hidden_states: torch.Tensor,  # (batch, seq, hidden_size)
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        input_ids: torch.LongTensor | None = None,  # (batch, seq), for the value embedding
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, seq, _ = hidden_states.shape
        heads = (batch, seq, -1, self.head_dim)
        query = self.q_proj(hidden_states).view(heads).transpose(1, 2)  # (batch, heads, seq, head_dim)
        key = self.k_proj(hidden_states).view(heads).transpose(1, 2)
        value = self.v_proj(hidden_states).view(heads)
        if self.value_embedding is not None:
            gate = 3 * self.value_gate(hidden_states[..., :VALUE_GATE_CHANNELS]).sigmoid()  # (batch, seq, kv heads)
            value = value + (gate[..., None] * self.value_embedding(input_ids).view(heads)).to(value.dtype)
        value = value.transpose(1, 2)

        eps = self.config.rms_norm_eps
        query, key = [rms_norm(rotate(x, *position_embeddings), eps) for x in (query, key)]
        if (scale := self.config.query_key_scale) != 1.0:
            query, key = query * scale, key * scale
        # Under autocast cos and sin are fp32 and would make queries and keys, and so the cache, fp32 as well.
        query, key = query.to(value.dtype), key.to(value.dtype)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)

        attention_name = self.config._attn_implementation
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(attention_name, eager_attention)
        if self.training and attention_name == "sdpa" and can_be_blocked(query, key, attention_mask):
            attention = blocked_attention
        output, weights = attention(
            self, query, key, value, attention_mask,
            dropout=0.0, scaling=self.scaling, sliding_window=self.sliding_window, **kwargs,
        )  # fmt: skip
        return self.o_proj(output.reshape(batch, seq, -1)), weights


class NanoHFMLP(nn.Module):
    def __init__(self, config: NanoHFConfig):
        super().__init__()
        assert config.intermediate_size is not None
        self.act = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        setattr(self.fc2, TAG, "zeros")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class NanoHFDecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: NanoHFConfig, layer_idx: int):
        super().__init__()
        self.eps = config.rms_norm_eps
        self.self_attn = NanoHFAttention(config, layer_idx)
        self.mlp = NanoHFMLP(config)
        self.residual_scale = self.input_scale = None
        if config.residual_scalars:
            self.residual_scale, self.input_scale = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))

    def forward(self, hidden_states: torch.Tensor, embedded: torch.Tensor, **kwargs) -> torch.Tensor:
        """hidden_states: the residual; embedded: what the first layer read. Both (batch, seq, hidden_size)."""
        if self.residual_scale is not None and self.input_scale is not None:
            hidden_states = self.residual_scale * hidden_states + self.input_scale * embedded
        hidden_states = hidden_states + self.self_attn(rms_norm(hidden_states, self.eps), **kwargs)[0]
        return hidden_states + self.mlp(rms_norm(hidden_states, self.eps))


class NanoHFPreTrainedModel(PreTrainedModel):
    config_class = NanoHFConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["NanoHFDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": NanoHFDecoderLayer, "attentions": NanoHFAttention}

    def _init_weights(self, module: nn.Module) -> None:
        """Matrices normal with std min(1, √(rows/cols)) / √cols, projections into the residual and head 0, embedding 1.

        Gates start at about half their range, value embeddings at the size of values, scalars as nanochat's of 2026-07.
        What differs is tagged on the leaf: transformers calls this for modules with parameters of their own only.
        """
        tag = getattr(module, TAG, None)
        if tag == "zeros":
            init.zeros_(module.get_parameter("weight"))
        elif tag == "gate":
            init.uniform_(module.get_parameter("weight"), 0.0, 0.02)
        elif tag == "value":
            init.normal_(module.get_parameter("weight"), mean=0.0, std=self.config.hidden_size**-0.5)
        elif isinstance(module, nn.Linear):
            rows, cols = module.weight.shape
            init.normal_(module.weight, mean=0.0, std=min(1.0, (rows / cols) ** 0.5) / cols**0.5)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=1.0)
        elif isinstance(module, NanoHFDecoderLayer):
            if module.residual_scale is not None and module.input_scale is not None:
                height = module.self_attn.layer_idx / max(1, self.config.num_hidden_layers - 1)  # 0 first, 1 last
                init.constant_(module.residual_scale, 1.15 - 0.10 * height)
                init.constant_(module.input_scale, 0.20 - 0.15 * height)
        elif isinstance(module, NanoHFModel):
            if module.backout_scale is not None:
                init.constant_(module.backout_scale, 0.2)
        else:
            super()._init_weights(module)

    def _resize_token_embeddings(self, new_num_tokens, pad_to_multiple_of=None, mean_resizing=True):
        embedding = super()._resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        for module in self.modules():
            if isinstance(module, NanoHFAttention) and (old := module.value_embedding) is not None:
                module.value_embedding = self._get_resized_embeddings(
                    old, embedding.num_embeddings, mean_resizing=mean_resizing
                ).requires_grad_(old.weight.requires_grad)
        return embedding


class NanoHFModel(NanoHFPreTrainedModel):
    """Token ids to the last hidden state, final norm included."""

    def __init__(self, config: NanoHFConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([NanoHFDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.rotary_emb = NanoHFRotaryEmbedding(config)
        self.backout_scale = nn.Parameter(torch.empty(1)) if config.backout else None
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,  # (batch, seq)
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,  # (batch, seq, hidden_size)
        use_cache: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is None and self.config.value_embeddings:
            raise ValueError(
                "this model has value embeddings, looked up by token: give input_ids, not inputs_embeds. Prompt tuning "
                "and the like take the classic preset, or LoRA."
            )
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        # One mask for each kind of layer, unless the caller has made them, as generate does for a static cache. Only
        # positions that are given can tell of packed rows: without them, compiled attention stays causal and maskless.
        if not isinstance(masks := attention_mask, dict):
            masks = create_masks_for_generate(
                config=self.config,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_ids=position_ids,
            )
        if position_ids is None:
            past = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + past).unsqueeze(0)
        eps = self.config.rms_norm_eps
        hidden_states = embedded = rms_norm(inputs_embeds, eps)
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        for i, layer in enumerate(self.layers):
            hidden_states = layer(
                hidden_states,
                embedded,
                attention_mask=masks[self.config.layer_types[i]],
                position_ids=position_ids,
                past_key_values=past_key_values,
                position_embeddings=position_embeddings,
                input_ids=input_ids,
                **kwargs,
            )
            if i == len(self.layers) // 2:
                halfway = hidden_states
        if self.backout_scale is not None:
            hidden_states = hidden_states - self.backout_scale * halfway
        return BaseModelOutputWithPast(last_hidden_state=rms_norm(hidden_states, eps), past_key_values=past_key_values)


class NanoHFForCausalLM(NanoHFPreTrainedModel, GenerationMixin):
    """NanoHFModel with an untied head; logits are capped: cap · tanh(logits / cap).

    input_ids, attention_mask, position_ids and labels are (batch, seq); logits (batch, kept positions, vocab_size); the
    loss is the mean cross-entropy in nats per label. `generate`, pipelines, Trainer and TRL take it as any causal
    language model of transformers.

    Raises:
        ValueError: neither or both of input_ids and inputs_embeds, or the latter where there are value embeddings.

    Source: nanochat's GPT of 2025-11 (https://github.com/karpathy/nanochat); see `NanoHFConfig` for the fields.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # used if tie_word_embeddings is set

    def __init__(self, config: NanoHFConfig):
        super().__init__(config)
        self.model = NanoHFModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        setattr(self.lm_head, TAG, "zeros")
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Labels are shifted here; −100 is ignored. logits_to_keep: the last n positions, or the given ones."""
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        if (cap := self.config.final_logit_softcapping) is not None:
            logits = cap * logits.div_(cap).tanh_()  # in place: the largest tensor, (batch, kept, vocab_size)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


# Trainer shifts labels for label_smoothing_factor only where it knows the class as a causal language model.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(NanoHFConfig.model_type, NanoHFForCausalLM.__name__)
