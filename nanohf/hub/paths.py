"""Paths tell a user's name and machine. What is published has their last part only, which tells the data."""

import os
import re

from nanohf.data.hub_names import split_revision

FILE = re.compile(r"file:/+", re.IGNORECASE)
# Unix or Windows, as a whole value, which may have blanks; and within a text, where a path ends at one.
LOCAL = re.compile(r"/|~|\.\.?[/\\]|[A-Za-z]:[/\\]|\\\\")
WITHIN = re.compile(r"(?<![\w.:/\\~-])(?:/[\w.@+-]+/|~[\w.-]*/|\.\.?[/\\]|[A-Za-z]:[/\\]|\\\\)\S+")


def without_paths(value):
    """The value, at any depth, with `./NAME` for every path of this machine: absolute, relative, file:// or Windows."""
    if isinstance(value, dict):
        return {key: without_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_paths(part) for part in value]
    if not isinstance(value, str):
        return value
    value = FILE.sub("/", value)
    return _last(value) if _is_path(value) else WITHIN.sub(lambda found: _last(found[0]), value)


def _is_path(value: str) -> bool:
    """Names of the Hub have one slash at most; one that has more, or that is there, is a folder."""
    if LOCAL.match(value):
        return "\n" not in value
    name, _ = split_revision(value)
    plain = "/" in name and "://" not in name and not re.search(r"\s", name)
    return plain and (name.count("/") > 1 or os.path.exists(name))  # of any text, where Path.exists() raises


def _last(path: str) -> str:
    return "./" + re.split(r"[/\\]", path.rstrip("/\\"))[-1].lstrip("~")
