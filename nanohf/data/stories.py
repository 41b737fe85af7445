"""Stories as conversations: asked for by what is in them, continued from their beginning, or brought to an end.

What a story is about is read off its own text: nouns, which here are words that stand between an article and a mark or
a little word ("the old lantern." gives lantern), by how often they do. Which of the three kinds a story becomes and how
the question is worded follows from a checksum of its text.
"""

import random
import re
import zlib
from collections import Counter

from nanohf.data.row_faults import Malformed

_AFTER = (
    "and|to|in|on|with|was|were|that|who|is|for|of|at|said|had|from|but|so|went|saw|came|could|did|as|into|by|found|took|"
    "ran|got|felt|made|flew|gave|[a-z]+ed"
)
_NOUN = re.compile(rf"\b([Aa]n?|[Tt]he|his|her) (?:[a-z]+ )?([a-z]{{3,}})(?=[.,!?\"]| (?:{_AFTER})\b)")
_SENTENCE = re.compile(r"(?<=[.!?])(\"?)\s+")
VAGUE = frozenset(
    re.findall(
        r"\w+",
        """day time way end thing things one other same first next rest lot bit side top back best idea name story part
        there then world place middle whole morning night others little big new old good""",
    )
)
TELL = (
    "Tell me a story about {}.", "Can you tell me a story about {}?", "Please tell a story about {}.",
    "Write a short story about {}.", "I would like to hear a story about {}.", "Make up a story about {}.",
    "Write a story with {} in it.", "Do you know a story about {}?", "A story about {}, please.",
)  # fmt: skip
ANY = ("Tell me a story.", "Can you tell me a story?", "Please tell a short story.", "I would like to hear a story.")
CONTINUE = (
    "What comes after this? {}", "Continue this story: {}", "Here is the start of a story. What happens then? {}",
    "What happens next? {}", "Please write the rest of this story: {}",
)  # fmt: skip
FINISH = (
    "Finish this story: {}", "How does this story end? {}", "Write an ending for this story: {}",
    "Only the end of this story is missing. Please write it. {}",
)  # fmt: skip


def conversation(row: dict) -> dict:
    """A story, `text`, as messages: asked for (14 of 20), continued (4) or finished (2).

    Raises:
        Malformed: a text that is not text.
    """
    if not isinstance(story := row["text"], str):
        raise Malformed(f"the text is {'missing' if story is None else f'a {type(story).__name__}, not text'}")
    story = story.strip()
    rng = random.Random(zlib.crc32(story.encode("utf-8", "surrogatepass")))
    kind, sentences = rng.randrange(20), _sentences(story)
    if kind < 14 or len(sentences) < 6:
        about = subjects(story)[: rng.choice((1, 2, 2))]
        question, answer = rng.choice(TELL if about else ANY).format(" and ".join(about)), story
    else:
        given = rng.randint(1, 3) if kind < 18 else len(sentences) - rng.randint(1, 2)
        question = rng.choice(CONTINUE if kind < 18 else FINISH).format(" ".join(sentences[:given]))
        answer = " ".join(sentences[given:])
    turns = (("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]}


def subjects(story: str) -> list[str]:
    """What the story is about, the most frequent first: `a fox`, `the stars`."""
    counts: Counter[str] = Counter()
    articles: dict[str, str] = {}
    for article, noun in _NOUN.findall(story):
        if noun not in VAGUE:
            counts[noun] += 1
            one = "an" if noun[0] in "aeiou" else "a"  # an adjective may have stood between
            articles[noun] = one if article[0] in "Aa" else articles.get(noun, "the")
    return [f"{articles[noun]} {noun}" for noun, _ in counts.most_common()]


def _sentences(story: str) -> list[str]:
    return _SENTENCE.sub(r"\1\n", story).split("\n")
