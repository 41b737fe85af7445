"""Passwords and tokens, which no record, card or tracker shall hold."""

import re

HIDDEN = "[token]"
SECRET = re.compile(r"(.*_)?(hub|access|auth|api)_(token|key)|(.*_)?password", re.IGNORECASE)
USER_AND_PASSWORD = re.compile(r"(?<=://)[^/\s@]+@")
QUERY = re.compile(r"(\b[a-z][\w+.-]*://[^\s?#]*)[?#]\S*", re.IGNORECASE)  # where signed addresses have their key
TOKEN = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|sk-[\w-]{16,})")


def without_credentials(value):
    """The value, at any depth, without the keys of tokens and passwords and without what logs in within an address."""
    if isinstance(value, dict):
        return {k: without_credentials(v) for k, v in value.items() if not SECRET.fullmatch(str(k))}
    if isinstance(value, list | tuple):
        return [without_credentials(part) for part in value]
    if isinstance(value, str):
        return TOKEN.sub(HIDDEN, QUERY.sub(r"\1", USER_AND_PASSWORD.sub("", value)))
    return value
