"""The calculator a model calls while it generates: `calculate("12/4")` is `"3"`; what it refuses is `None`.

The model writes the expression, so it is untrusted text. It is tokenised and parsed here, never handed to
`eval`, and all that could grow is bounded: length, nesting, exponents, the magnitude of every value.
Values follow Python (`//` and `%` round down, `**` binds tighter than a sign and to the right); but a
division of integers that comes out even stays an exact integer.
"""

import operator
import re
from collections.abc import Callable
from decimal import Decimal

from nanohf.generation.numbers import UNSIGNED

MAX_LENGTH = 256  # characters
MAX_DEPTH = 32  # parentheses and exponents inside one another
MAX_EXPONENT = 1000
MAX_MAGNITUDE = 10**50
MAX_DECIMALS = 10  # of a result: 1/3 is 0.3333333333
MAX_DIGITS = 14  # significant, of a result that is a float: hides binary rounding, 0.1+0.2 is 0.3

STRING = r"""(?:"[^"\\\r\n]*"|'[^'\\\r\n]*')"""
TOKEN = re.compile(
    rf"""(?P<number>{UNSIGNED})
    |(?P<operator>\*\*|//|[-+*/%()])
    |(?P<text>{STRING})\.count\([ ]*(?P<part>{STRING})[ ]*\)
    |(?P<space>[ \t]+)""",
    re.VERBOSE,
)

Number = int | float
Token = Number | str


def calculate(expression: str) -> str | None:
    """The result of `expression` as text, or None: malformed, out of bounds, or without a real value."""
    if len(expression) > MAX_LENGTH:
        return None
    try:
        return _text(_Parser(_tokens(expression)).result())
    except (ArithmeticError, ValueError):
        return None


def _tokens(expression: str) -> list[Token]:
    """Numbers as values, operators as strings; `"text".count("part")` is a number already."""
    tokens: list[Token] = []
    at = 0
    while at < len(expression):
        match = TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"no token at {expression[at:]!r}")
        if match["number"]:
            digits = match["number"].replace(",", "")
            tokens.append(float(digits) if "." in digits else int(digits))
        elif match["operator"]:
            tokens.append(match["operator"])
        elif match["text"]:
            tokens.append(match["text"][1:-1].count(match["part"][1:-1]))
        at = match.end()
    return tokens


def _divide(a: Number, b: Number) -> Number:
    even = isinstance(a, int) and isinstance(b, int) and a % b == 0
    return a // b if even else a / b


BINARY: dict[
    Token, tuple[int, Callable[[Number, Number], Number]]
] = {  # operator: (precedence, function); `**` binds tighter than a sign and has its own rule
    "+": (1, operator.add),
    "-": (1, operator.sub),
    "*": (2, operator.mul),
    "/": (2, _divide),
    "//": (2, operator.floordiv),
    "%": (2, operator.mod),
}


class _Parser:
    """Precedence climbing; each method consumes what it is named after and returns its value."""

    def __init__(self, tokens: list[Token]):
        self.tokens = [*tokens, "end"]
        self.at = self.depth = 0

    def result(self) -> Number:
        value = self.expression()
        self.expect("end")
        return value

    def expression(self, lowest: int = 1) -> Number:
        left = self.signed()
        while (operation := BINARY.get(self.peek())) and operation[0] >= lowest:
            self.take()
            precedence, function = operation
            left = _bounded(function(left, self.expression(precedence + 1)))
        return left

    def signed(self) -> Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.take() == "-"
        value = self.power()
        self.depth -= 1
        return -value if negative else value

    def power(self) -> Number:
        base = self.atom()
        if self.peek() != "**":
            return base
        self.take()
        exponent = self.signed()
        if abs(exponent) > MAX_EXPONENT:
            raise ValueError(f"exponent beyond {MAX_EXPONENT}")
        return _bounded(base**exponent)

    def atom(self) -> Number:
        token = self.take()
        if token == "(":
            value = self.expression()
            self.expect(")")
            return value
        if isinstance(token, str):
            raise ValueError(f"a number or a parenthesis was expected, not {token!r}")
        return _bounded(token)

    def peek(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise ValueError(f"{token!r} was expected")


def _bounded(value: Number | complex) -> Number:
    """Refuses complex numbers, infinity, nan, and whatever is too large to compute with."""
    if isinstance(value, complex) or not abs(value) <= MAX_MAGNITUDE:
        raise ValueError(f"not a real number up to {MAX_MAGNITUDE:.0e}")
    return value


def _text(value: Number) -> str:
    """Never an exponent, never a trailing zero, never '-0'."""
    if isinstance(value, int):
        return str(value)
    rounded = round(value, MAX_DECIMALS) + 0.0  # + 0.0 turns -0.0 into 0.0
    return format(Decimal(f"{rounded:.{MAX_DIGITS}g}"), "f")
