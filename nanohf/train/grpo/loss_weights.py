"""Token weights that make a token's share of GRPO's loss depend on its own word problem alone."""

import torch


def word_problem_weights(valid_tokens: torch.Tensor, num_generations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights under which the sum over all tokens, divided by the total, is the mean over word problems of token means.

    As nanochat's chat_rl has it, where a token counts 1 / (valid tokens of its word problem x word problems). No weight
    is below 1, as TRL clamps sums of a completion's mask at 1.

    valid_tokens: sampled tokens of each completion, (completions,), of all processes, group by group.
    Returns a weight for the tokens of each completion, (completions,), and the total, a scalar.

    >>> word_problem_weights(torch.tensor([3, 5, 1, 1]), num_generations=2)
    (tensor([1., 1., 4., 4.]), tensor(16))
    """
    tokens = valid_tokens.view(-1, num_generations).sum(1).clamp(min=1)  # of each word problem
    longest = tokens.max()
    return (longest / tokens).repeat_interleave(num_generations), longest * len(tokens)
