"""The one grammar of numbers: what the calculator reads, what an answer may be, and what earns a reward.

A number has digits, perhaps in groups of three with commas, and perhaps decimals: 7, 1,200, 1200.50, .5. An answer is
one number, perhaps with a unit in words, and nothing else on its line. Whatever continues the number makes it something
else, and something else is not read: 1/2, 1e3, 2:30, 5 1/2, 1.200,5, 1,2,00, 2**3, 5 million, 5 feet 3 inches.
"""

import re

UNSIGNED = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
NUMBER = re.compile(rf"(-?)({UNSIGNED}),?%?(?!\S)")
UNIT = re.compile(r"(?:[^\W\d_]|[ \t.,;!?'\"()%$€£]|\b[-/]\b)*")  # apples; km/h; one-way tickets, I think
MULTIPLES = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|hal[fv]e?|third|quarter|fifth|tenth)(?:th)?s?\b",
    re.IGNORECASE,
)


def read_number(text: str) -> str | None:
    """The number that a text's first line consists of, in one spelling: '1,200.', '1200.0' and '1200' are '1200'.

    None if there is none, or if more follows than the unit.

    >>> [read_number(text) for text in ("-07.50 km", "1,200.", "1/2", "5 1/2", "1e3", "2:30", "1.200,5", "twelve")]
    ['-7.5', '1200', None, None, None, None, None, None]
    """
    line = re.split(r"[\r\n]", text, maxsplit=1)[0]
    found = NUMBER.match(line)
    if found is None or not _is_unit(line[found.end() :]):
        return None
    whole, _, decimals = found[2].replace(",", "").partition(".")
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    value = f"{whole}.{decimals}" if decimals else whole
    return value if value == "0" else found[1] + value


def _is_unit(text: str) -> bool:
    numeric = any(character.isnumeric() for character in text)  # digits of any script, fractions, superscripts
    return not numeric and UNIT.fullmatch(text) is not None and MULTIPLES.search(text) is None
