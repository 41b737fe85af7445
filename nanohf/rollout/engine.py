"""The generation engine: one copy for RL, evaluation and chat. It reads the live model's weights and owns no copy.

What makes it faster than `model.generate`: a prompt is read once for its whole group of samples, keys and values go
into preallocated memory, only the top-k values are sampled from, and finished rows leave the batch. The calculator is
part of it: when a row closes a python block, the result is forced as its next tokens, and marked so.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from transformers.cache_utils import Cache, DynamicLayer

from .calculator import calculate


@dataclass
class Completion:
    """What a row generated. `chosen` is 1 where the model chose the token and 0 where the engine forced it."""

    ids: list[int] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    finished: bool = False  # ended by a stop token, not by max_new_tokens
    calls: int = 0  # of the calculator
    refused: int = 0  # calls it could not answer


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in memory taken once: (rows, key/value heads, capacity, head_dim)."""

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity, self.length = capacity, 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        rows, heads, new, head_dim = key_states.shape
        if not self.is_initialized:
            self.key_store = key_states.new_empty(rows, heads, self.capacity, head_dim)
            self.value_store = value_states.new_empty(rows, heads, self.capacity, head_dim)
            self.is_initialized = True
        start, self.length = self.length, self.length + new
        self.key_store[:, :, start : self.length] = key_states
        self.value_store[:, :, start : self.length] = value_states
        return self.key_store[:, :, : self.length], self.value_store[:, :, : self.length]

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def keep_rows(self, rows: torch.Tensor) -> None:
        self.key_store, self.value_store = self.key_store[rows], self.value_store[rows]


class Engine:
    """Generates with a causal language model and its tokenizer (nanohf's special tokens).

    Args:
        calculator: answer python blocks. Without it the model has to write the output itself.
    """

    def __init__(self, model, tokenizer, calculator: bool = True):
        self.model, self.tokenizer, self.calculator = model, tokenizer, calculator
        ids = tokenizer.convert_tokens_to_ids
        self.python_start, self.python_end = ids("<|python_start|>"), ids("<|python_end|>")
        self.output_start, self.output_end = ids("<|output_start|>"), ids("<|output_end|>")
        self.stops = {tokenizer.eos_token_id, tokenizer.bos_token_id}

    @torch.no_grad()
    def generate(
        self,
        prompts: list[list[int]],
        num_samples: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_k: int = 50,
        seed: int = 0,
        on_token: Callable[[int, int, bool], None] | None = None,
    ) -> list[list[Completion]]:
        """`num_samples` completions of each prompt (token ids), the stop token included where one was reached.

        A row's tokens depend on its prompt, `seed` and its place among the rows, not on its neighbours' content.
        temperature 0 is greedy. on_token(row, id, chosen) is called as tokens come, for streaming.
        """
        training = self.model.training
        self.model.eval()
        try:
            return self._generate(prompts, num_samples, max_new_tokens, temperature, top_k, seed, on_token)
        finally:
            self.model.train(training)

    def _generate(self, prompts, num_samples, max_new_tokens, temperature, top_k, seed, on_token):
        device = self.model.device
        rows = len(prompts) * num_samples
        completions = [Completion() for _ in range(rows)]
        dice = torch.stack([_dice(seed, row, max_new_tokens) for row in range(rows)]).to(device)
        forced: list[list[int]] = [[] for _ in range(rows)]

        longest = max(map(len, prompts))
        capacity = longest + max_new_tokens
        layers = [PreallocatedLayer(capacity) for _ in range(self.model.config.num_hidden_layers)]
        cache = Cache(layers=layers)
        ids, mask, position = self._padded(prompts, longest, capacity)  # mask: (prompts, 1, capacity), 0 or -inf

        causal = torch.full((longest, longest), torch.finfo(mask.dtype).min, device=device, dtype=mask.dtype).triu(1)
        prefill = (mask[:, None, :, :longest] + causal).clamp(min=torch.finfo(mask.dtype).min)
        positions = (torch.arange(longest, device=device) - (longest - position)[:, None]).clamp(min=0)
        logits = self._forward(ids, prefill, positions, cache)

        index = torch.arange(len(prompts), device=device).repeat_interleave(num_samples)
        if num_samples > 1:
            logits, mask, position = logits[index], mask[index], position[index]
            for layer in layers:
                layer.keep_rows(index)
        active = list(range(rows))  # the rows still in the batch, in its order

        for i in range(max_new_tokens):
            tokens = _sample(logits, dice[active, i], temperature, top_k).tolist()
            for at, row in enumerate(active):
                completion = completions[row]
                if completion.finished:
                    continue
                chosen = not forced[row]
                tokens[at] = token = tokens[at] if chosen else forced[row].pop(0)
                completion.ids.append(token)
                completion.chosen.append(int(chosen))
                if on_token:
                    on_token(row, token, chosen)
                if chosen and token in self.stops:
                    completion.finished = True
                elif chosen and token == self.python_end and self.calculator:
                    forced[row] = self._answer(completion)
            left = [at for at, row in enumerate(active) if not completions[row].finished]
            if not left or i == max_new_tokens - 1:
                break
            # Rows leave the batch when a quarter is idle: copying the cache costs about as much as computing that.
            if len(left) <= 0.75 * len(active):
                keep = torch.tensor(left, device=device)
                for layer in layers:
                    layer.keep_rows(keep)
                mask, position = mask[keep], position[keep]
                tokens = [tokens[at] for at in left]
                active = [active[at] for at in left]
            logits = self._forward(
                torch.tensor(tokens, device=device)[:, None],
                mask[:, None, :, : longest + i + 1],
                (position + i)[:, None],
                cache,
            )
        return [completions[p * num_samples : (p + 1) * num_samples] for p in range(len(prompts))]

    def _forward(self, ids, mask, positions, cache) -> torch.Tensor:
        """Logits of the last position, (rows, vocab_size) in fp32."""
        return (
            self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
            )
            .logits[:, -1]
            .float()
        )

    def _padded(self, prompts, longest: int, capacity: int):
        """Left-padded ids (prompts, longest), additive mask (prompts, 1, capacity) and lengths (prompts,)."""
        device, dtype = self.model.device, self.model.dtype
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=device)
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        padding = torch.arange(capacity, device=device) < (longest - lengths)[:, None]
        mask = torch.zeros(len(prompts), 1, capacity, device=device, dtype=dtype)
        return ids, mask.masked_fill_(padding[:, None], torch.finfo(dtype).min), lengths

    def _answer(self, completion: Completion) -> list[int]:
        """The forced tokens after a closed python block: its result between output tokens, or nothing if refused."""
        before = completion.ids[:-1]
        if self.python_start not in before:
            return []
        expression = before[len(before) - before[::-1].index(self.python_start) :]
        completion.calls += 1
        result = calculate(self.tokenizer.decode(expression))
        if result is None:
            completion.refused += 1
            return []
        return [self.output_start, *self.tokenizer.encode(result, add_special_tokens=False), self.output_end]


def complete(model, tokenizer, text: str, **options) -> str:
    """Greedy continuation of a plain text, for a look at a base model. Options: those of `Engine.generate`."""
    prompt = tokenizer.encode(text)
    (completion,) = Engine(model, tokenizer).generate([prompt], temperature=0.0, **options)[0]
    return text + tokenizer.decode(completion.ids)


def _dice(seed: int, row: int, count: int) -> torch.Tensor:
    """The row's own uniform numbers, one a token: what it draws does not depend on which other rows are there."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + row))


def _sample(logits: torch.Tensor, dice: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
    """One id a row from softmax(logits / temperature) over the top_k values, by inverting its distribution function."""
    if temperature == 0:
        return logits.argmax(-1)
    values, ids = logits.topk(min(top_k, logits.shape[-1]))  # (rows, k), falling
    shares = (values / temperature).softmax(-1).cumsum(-1)
    place = (shares < dice[:, None] * shares[:, -1:]).sum(-1, keepdim=True).clamp(max=shares.shape[-1] - 1)
    return ids.gather(-1, place).squeeze(-1)
