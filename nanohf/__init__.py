"""nanohf: a small GPT from raw text to a chat model, on the Hugging Face stack, with one dial: depth."""

__version__ = "0.1.0"
