"""The one grammar of numbers: what the calculator reads, what an answer may be, and what earns a reward.

A number has digits, perhaps in groups of three with commas, and perhaps decimals: 7, 1,200, 1200.50, .5. Whatever
continues it makes it something else, and something else is not a number: 1/2, 1e3, 2:30, 5 1/2, 1.200,5, 1,2,00.
"""

import re

UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
CONTINUED = r"[.,]?[0-9]|[ \t]*[-+*/:^×÷][ \t]*[0-9.]|[ \t]+[0-9.]|[eE][-+]?[0-9]|[½¼¾⅓⅔]"
NUMBER = re.compile(rf"(-?)({UNSIGNED})(?!{CONTINUED})")


def read_number(text: str) -> str | None:
    """The number at the beginning of a text in one spelling, or None: '1,200.', '1200.0' and '1200' are '1200'.

    >>> [read_number(text) for text in ("-07.50 km", "1,200.", "1/2", "5 1/2", "1e3", "2:30", "1.200,5", "twelve")]
    ['-7.5', '1200', None, None, None, None, None, None]
    """
    found = NUMBER.match(text)
    if found is None:
        return None
    whole, _, decimals = found[2].replace(",", "").partition(".")
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    value = f"{whole}.{decimals}" if decimals else whole
    return value if value == "0" else found[1] + value
