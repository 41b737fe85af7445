"""Special tokens as a person would write them."""

SHOWN = {
    "<|bos|>": "",
    "<|user_start|>": "user: ",
    "<|user_end|>": "\n",
    "<|assistant_start|>": "assistant: ",
    "<|assistant_end|>": "\n",
    "<|python_start|>": "[",
    "<|python_end|>": "",
    "<|output_start|>": " = ",
    "<|output_end|>": "]",
}


def readable(text: str) -> str:
    """A decoded conversation with roles in front of turns and calculator calls as [12*3 = 36]."""
    for token, shown in SHOWN.items():
        text = text.replace(token, shown)
    return text.strip()
