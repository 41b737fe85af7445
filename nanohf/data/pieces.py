"""Long documents in pieces, so that a book is read, shuffled, tokenised and held out a few pages at a time."""

from collections.abc import Iterable, Iterator

PIECE = 16_384  # characters: two rows of 2,048 tokens at the 4 characters per token of an English text


def pieces(text: str, limit: int = PIECE) -> Iterator[str]:
    """A text in pieces of at most `limit` characters that add up to it, one if it is short enough."""
    return (piece for piece, _ in joined([text], limit)) if len(text) > limit else iter([text])


def joined(parts: Iterable[str], limit: int = PIECE) -> Iterator[tuple[str, bool]]:
    """What the parts add up to, in pieces of at most `limit` characters, and whether each is the first."""
    waiting: list[str] = []
    length, begins = 0, True
    for part in parts:
        waiting.append(part)
        length += len(part)
        if length <= limit:
            continue
        text, at = "".join(waiting), 0
        while len(text) - at > limit:
            end = _cut(text, at, at + limit)
            yield text[at:end], begins
            begins, at = False, end
        waiting, length = [text[at:]], len(text) - at
    if length:
        yield "".join(waiting), begins


def _cut(text: str, start: int, stop: int) -> int:
    """Where to cut: behind a paragraph, else behind a line, else before a space. Byte-level BPE loses no merge there.

    A piece has at least half of what fits.
    """
    half = (start + stop) // 2
    for mark, kept in (("\n\n", 2), ("\n", 1), (" ", 0)):
        if (found := text.rfind(mark, half, stop)) > start:
            return found + kept
    return stop
