"""Floating point operations of training."""


def flops_per_token(matrix_parameters: int, layers: int, hidden_size: int, length: int) -> int:
    """Forward and backward, per token of a row of `length` tokens.

    6 per weight that multiplies (all but embeddings), and 12 per layer, channel and position attended to, of which
    the causal mask leaves half (PaLM, arXiv 2204.02311, appendix B, counts all of them).
    """
    return 6 * matrix_parameters + 12 * layers * hidden_size * length // 2
