"""Values of recipes, records and data as text of a card, where they can break neither Markdown nor a table."""

import os
import re

from jinja2 import Undefined

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
MARKUP = re.compile(r"([\\`*\[\]<>#&!~$|{}])")
LONGEST = 200  # characters of a value; the recipe at the card's end has it whole


def hub_id(name: str | None) -> str | None:
    """The name if it is a Hub id; None for builtin, a folder, an identity file or a stage's name."""
    local = not name or name.endswith((".yaml", ".yml")) or not HUB_ID.fullmatch(name) or os.path.exists(name)
    return None if local or len(str(name)) > LONGEST else name


def one_line(value: str) -> str:
    """Without line breaks and control characters, and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def inline(value: str) -> str:
    """As plain text within a line or a cell of a table: nothing in it is a link, HTML or any other markup."""
    return MARKUP.sub(r"\\\1", one_line(value))


def code(value: str) -> str:
    """As a code span, in a table too."""
    return f"`{one_line(value).replace('`', chr(39)).replace('|', '/')}`"


def named(dataset: str) -> str:
    return "nanohf's builtin toy world" if dataset == "builtin" else inline(dataset)


def linked(dataset: str) -> str:
    return f"[{dataset}](https://huggingface.co/datasets/{dataset})" if hub_id(dataset) else named(dataset)


def known(value, otherwise: str = "not measured") -> str:
    """A figure for reading: 655,360, 42,870, 0.3198."""
    if value is None or isinstance(value, Undefined):
        return otherwise
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else inline(str(value))
