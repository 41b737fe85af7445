"""Special tokens as a person would write them, and text of any kind inside Markdown."""

import re

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


def fenced(text: str, language: str = "") -> str:
    """The text as a Markdown code block that nothing in it can end: the fence is longer than any it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
