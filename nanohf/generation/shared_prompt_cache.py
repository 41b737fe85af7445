"""Keys and values of rows that share prompts, and attention over them.

A prompt's keys and values are kept once for all its rows, which read them with one matrix product; what a row adds is
its own. The model runs its usual forward: attention is plugged in through transformers' attention interface, so any
model that uses it works, sliding windows and grouped key/value heads included.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class SharedPromptLayer(DynamicLayer):
    """One layer: first the prompts' keys and values, then each row's own in memory taken once.

    keys, values: (prompts, key/value heads, longest prompt, head_dim), right-padded.
    own_keys, own_values: (rows, key/value heads, capacity, head_dim), of which `length` are filled.
    """

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity, self.length = capacity, 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.keys, self.values, self.is_initialized = key_states, value_states, True
            return key_states, value_states
        if self.length == 0:
            rows, heads, _, head_dim = key_states.shape
            self.own_keys = key_states.new_empty(rows, heads, self.capacity, head_dim)
            self.own_values = value_states.new_empty(rows, heads, self.capacity, head_dim)
        self.own_keys[:, :, self.length] = key_states[:, :, 0]
        self.own_values[:, :, self.length] = value_states[:, :, 0]
        self.length += 1
        return self.own_keys[:, :, : self.length], self.own_values[:, :, : self.length]

    def get_seq_length(self) -> int:
        return self.keys.shape[2] + self.length if self.is_initialized else 0

    def move_rows(self, source: list[int], target: list[int], count: int) -> None:
        for own in (self.own_keys, self.own_values) if self.length else ():
            own[target, :, : self.length] = own[source, :, : self.length]
        if self.length:
            self.own_keys, self.own_values = self.own_keys[:count], self.own_values[:count]

    def keep_prompts(self, prompts: list[int], longest: int) -> None:
        """longest: tokens of the longest of them. Padding beyond it goes: where lengths are equal none is masked."""
        assert self.keys is not None  # the prompts have been read
        assert self.values is not None
        self.keys, self.values = self.keys[prompts, :, :longest], self.values[prompts, :, :longest]


class SharedPromptCache(Cache):
    """The layers, and which row continues which prompt.

    Args:
        num_layers: of the model.
        lengths: tokens of each prompt; the prompts are right-padded to the longest.
        capacity: tokens that a row may add.
    """

    def __init__(self, num_layers: int, lengths: list[int], capacity: int, device: torch.device):
        super().__init__(layers=[SharedPromptLayer(capacity) for _ in range(num_layers)])
        self.lengths, self.device = lengths, device
        self.prompt_of: list[int] = []  # of each row; empty until the prompts have been read

    @contextmanager
    def attached(self, model) -> Iterator[None]:
        """Within it, the model attends with this cache."""
        config, name = model.config, f"shared_prompt_{id(self)}"
        before = config._attn_implementation
        ALL_ATTENTION_FUNCTIONS[name] = self.attend
        config._attn_implementation = name
        try:
            yield
        finally:
            config._attn_implementation = before
            del ALL_ATTENTION_FUNCTIONS[name]

    def fork(self, num_samples: int) -> None:
        """The prompts have been read: from here on there are `num_samples` rows of each."""
        self._arrange([prompt for prompt in range(len(self.lengths)) for _ in range(num_samples)])

    def keep_rows(self, order: list[int]) -> None:
        """Row i becomes what row order[i] was. Only rows that change place are copied."""
        target = [row for row, was in enumerate(order) if was != row]
        source = [order[row] for row in target]
        for layer in self.layers:
            layer.move_rows(source, target, len(order))
        self._arrange([self.prompt_of[row] for row in order])

    def _arrange(self, prompt_of: list[int]) -> None:
        """Places the rows of a prompt side by side, for its one matrix product: all prompts get equally many slots."""
        alive = sorted(set(prompt_of))
        if len(alive) < len(self.lengths):
            self.lengths = [self.lengths[prompt] for prompt in alive]
            for layer in self.layers:
                layer.keep_prompts(alive, max(self.lengths))
        self.prompt_of = [alive.index(prompt) for prompt in prompt_of]

        groups: list[list[int]] = [[] for _ in alive]
        for row, prompt in enumerate(self.prompt_of):
            groups[prompt].append(row)
        size = max(map(len, groups))
        self.row_in = torch.tensor([group + [0] * (size - len(group)) for group in groups], device=self.device)
        places = [size * prompt + groups[prompt].index(row) for row, prompt in enumerate(self.prompt_of)]
        self.slot_of = torch.tensor(places, device=self.device)
        self.in_order = places == list(range(len(alive) * size))  # then slots are rows
        self.length_of = torch.tensor(self.lengths, device=self.device)[:, None]

    def attend(self, module, query, key, value, attention_mask, scaling=None, sliding_window=None, **kwargs):
        """An attention function of transformers; `attention_mask` is not read, since the cache knows what a row sees.

        query: (rows, heads, new, head_dim); key, value: what `update` returned. Returns (rows, new, heads, head_dim).
        """
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        if self.prompt_of:
            layer = self.layers[module.layer_idx]
            return self._continue(query, key, value, layer.keys, layer.values, scaling, sliding_window), None
        mask = None  # the padding comes last, where causality hides it
        if sliding_window is not None and sliding_window < key.shape[2]:
            mask = query.new_ones(key.shape[2], key.shape[2], dtype=torch.bool).tril().triu(1 - sliding_window)
        output = F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )
        return output.transpose(1, 2), None

    def _continue(self, query, own_keys, own_values, keys, values, scaling, window) -> torch.Tensor:
        """Each row's one new query over its prompt's and its own keys, in one softmax."""
        rows, heads, _, head_dim = query.shape
        kv_heads, length = keys.shape[1:3]
        new = own_keys.shape[2]
        first = 0  # the first column of the prompts that any row sees
        if window is not None:
            first = min(length, max(0, min(self.lengths) + new - window))
            own_keys, own_values = own_keys[:, :, -window:], own_values[:, :, -window:]
        keys, values, length = keys[:, :, first:], values[:, :, first:], length - first

        query = query.reshape(rows, kv_heads, -1, head_dim) * scaling
        scores = self._by_prompt(query) @ keys.transpose(2, 3)  # (prompts, kv_heads, slots x queries per head, length)
        if min(self.lengths) < max(self.lengths):
            column = torch.arange(first, first + length, device=self.device)
            hidden = column >= self.length_of
            if window is not None:
                hidden |= column < self.length_of + new - window
            scores = scores.masked_fill(hidden[:, None, None], -torch.inf)
        own = (own_keys @ query.transpose(2, 3)).transpose(2, 3)  # in this order 1.5 to 2.5 times as fast on a CPU
        scores = torch.cat((self._by_row(scores, rows), own), dim=-1)
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        shared = self._by_row(self._by_prompt(weights[..., :length]) @ values, rows)
        return (shared + weights[..., length:] @ own_values).reshape(rows, 1, heads, head_dim)

    def _by_prompt(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, kv_heads, queries per head, n) to (prompts, kv_heads, slots x queries per head, n)."""
        prompts, slots = self.row_in.shape
        _, kv_heads, queries, n = x.shape
        x = x if self.in_order else x[self.row_in.flatten()]
        x = x.reshape(prompts, slots, kv_heads, queries, n).transpose(1, 2)
        return x.reshape(prompts, kv_heads, slots * queries, n)

    def _by_row(self, x: torch.Tensor, rows: int) -> torch.Tensor:
        """The way back."""
        prompts, slots = self.row_in.shape
        _, kv_heads, many, n = x.shape
        x = x.view(prompts, kv_heads, slots, many // slots, n).transpose(1, 2)
        x = x.reshape(prompts * slots, kv_heads, many // slots, n)
        return x if self.in_order else x[self.slot_of]
