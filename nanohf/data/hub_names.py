"""Names of the Hub: USER/NAME, and for a model or tokenizer USER/NAME@REVISION, a branch, tag or commit of it."""

import os
import re
from typing import Any

PINNED = re.compile(r"(\w[\w.-]*/\w[\w.-]*)@(\S+)")


def split_revision(source: str) -> tuple[str, str | None]:
    """USER/NAME@REVISION to its two parts; a folder, or a name without a revision, to itself and None."""
    found = PINNED.fullmatch(source)
    return (found[1], found[2]) if found and not os.path.exists(source) else (source, None)


def pretrained(source: str) -> dict[str, Any]:
    """The arguments of `from_pretrained` that say what to load: `Model.from_pretrained(**pretrained(source))`."""
    name, revision = split_revision(source)
    return {"pretrained_model_name_or_path": name} | ({"revision": revision} if revision else {})
