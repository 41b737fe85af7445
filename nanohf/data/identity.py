"""Identity conversations, who the model is and what it can do, from a small YAML file of the user's own.

    {dataset: ../identity.yaml, converter: identity, rows: 1000}    # found from the recipe's folder

The file:

    facts:                                  # what {braces} in the texts below stand for
      name: nanohf
    exchanges:                              # every question of an entry may get every answer of it
      - questions: ["Who are you?", "What is your name?"]
        answers: ["I am {name}."]

Its first conversations are each question with each of its answers, in one fixed shuffled order; if `rows` asks for
more, the others are about one to three entries each. The first n are those of any larger number.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SUFFIXES = (".yaml", ".yml")
PLACE = re.compile(r"\{(\w+)\}")
LONGEST = 3  # exchanges in one conversation

Exchange = tuple[list[str], list[str]]  # questions, answers


def rows(path: str, size: int | None = None) -> Iterator[dict]:
    """`size` conversations {messages: [{role, content}, ...]}; by default each question with each answer once."""
    exchanges = load(path)
    singles = [[(question, answer)] for questions, answers in exchanges for question in questions for answer in answers]
    random.Random(0).shuffle(singles)
    for index in range(len(singles) if size is None else size):
        yield _conversation(singles[index] if index < len(singles) else _several(exchanges, random.Random(f"{index}")))


def load(path: str) -> list[Exchange]:
    """The entries of a file, their facts filled in.

    Raises:
        ValueError: a file that cannot be read or is not YAML, other keys, an entry without question or answer, a text
            that YAML takes for something else, a fact that is not among the facts.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"identity file {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"identity file {path} is not valid YAML: {error}. Put the texts in quotes.") from error
    if not isinstance(content, dict) or not set(content) <= {"facts", "exchanges"} or not content.get("exchanges"):
        raise ValueError(f"identity file {path} must have `exchanges`, a list, and may have `facts`; nothing else")
    facts, exchanges = content.get("facts") or {}, content["exchanges"]
    if not isinstance(facts, dict) or not isinstance(exchanges, list):
        raise ValueError(f"identity file {path}: `facts` maps names to texts, `exchanges` is a list of entries")
    return [_exchange(entry, facts, f"identity file {path}, entry {i}") for i, entry in enumerate(exchanges, 1)]


def _exchange(entry: dict, facts: dict, where: str) -> Exchange:
    if not isinstance(entry, dict) or set(entry) != {"questions", "answers"}:
        raise ValueError(f"{where} must have `questions` and `answers` and nothing else, not {entry!r}")
    return _texts(entry["questions"], facts, f"{where}, questions"), _texts(
        entry["answers"], facts, f"{where}, answers"
    )


def _texts(texts: Any, facts: dict, where: str) -> list[str]:
    texts = texts if isinstance(texts, list) else [texts]
    for text in texts or [None]:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{where}: {text!r} is not text. Write at least one; put what is not plain text in quotes."
            )
        if unknown := set(PLACE.findall(text)) - set(facts):
            have = ", ".join(map(str, facts)) or "none"
            raise ValueError(f"{where}: {text!r} names {', '.join(sorted(unknown))}; the file's facts are: {have}")
    return [PLACE.sub(lambda place: str(facts[place[1]]), text).strip() for text in texts]


def _several(exchanges: list[Exchange], rng: random.Random) -> list[tuple[str, str]]:
    chosen = rng.sample(exchanges, rng.randint(1, min(LONGEST, len(exchanges))))
    return [(rng.choice(questions), rng.choice(answers)) for questions, answers in chosen]


def _conversation(turns: list[tuple[str, str]]) -> dict:
    said = [pair for turn in turns for pair in zip(("user", "assistant"), turn, strict=True)]
    return {"messages": [{"role": role, "content": text} for role, text in said]}
