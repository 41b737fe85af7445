"""Values of recipes: what a YAML value or the text of an override becomes for a key of a given type."""

import difflib
from collections.abc import Collection
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "a mapping",
}


class WrongValue(ValueError):
    """A value that its key does not take."""


def kinds_of(annotation: Any) -> tuple[type, ...]:
    """The plain types that an annotation allows: `int | None` is (int, NoneType), `list[str]` is (list,)."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for part in get_args(annotation) for kind in kinds_of(part))
    if get_origin(annotation) is Literal:
        return tuple(type(value) for value in get_args(annotation))
    if annotation is None:
        return (NoneType,)
    if annotation is Any:
        return (int, float, bool, str, list, dict, NoneType)
    origin = get_origin(annotation) or annotation
    return (origin,) if origin in (*NAMES, NoneType) else (str,)  # an enumeration is written as text


def from_yaml(key: str, value: Any, kinds: Collection[type]) -> Any:
    """The value for a key that allows these kinds.

    A number written as YAML's text (1e-3) becomes one. YAML reads a bare `no` as false; for text it is "no" again.

    Raises:
        WrongValue: it is of none of the kinds.
    """
    if type(value) in kinds or (type(value) is int and float in kinds):
        return value
    if isinstance(value, bool) and str in kinds:
        return "yes" if value else "no"
    if isinstance(value, str) and float in kinds:
        try:
            return float(value)
        except ValueError:
            pass
    allowed = " or ".join(NAMES[kind] for kind in kinds if kind in NAMES)
    example = f", such as [{value}]" if list in kinds and str not in kinds else ""
    raise WrongValue(f"{key}={value!r} must be {allowed}{example}")


def from_command_line(key: str, words: list[str], kinds: Collection[type]) -> Any:
    """The value of `--key word ...`; no word at all is true.

    Raises:
        WrongValue: as `from_yaml`.
    """
    import yaml

    if not words and bool in kinds:
        return True
    if list in kinds and (len(words) != 1 or not words[0].startswith("[")) and (str not in kinds or len(words) > 1):
        return [yaml.safe_load(word) for word in words]
    if len(words) != 1:
        raise WrongValue(f"{key}={' '.join(words)!r} must be one value")
    try:
        value = yaml.safe_load(words[0])
    except yaml.YAMLError:
        value = words[0]
    if str in kinds and type(value) not in (NoneType, list, dict) and not (bool in kinds and isinstance(value, bool)):
        return words[0]
    if value is None and NoneType not in kinds and str in kinds:
        return words[0]
    return from_yaml(key, value, kinds)


def suggestion(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
