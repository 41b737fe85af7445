"""Spelling and letter counting, the builtin examples `spelling` and `letter_counting`, made from a list of words.

    from nanohf.data.spelling import rows
    next(rows("letter_counting", "train", size=1))    # {"messages": [{"role": "user", "content": [...]}, ...]}

A model sees tokens, not letters: how a token is spelled it knows only if it has been told. It spells the word first and
leaves the counting to the calculator, `"strawberry".count("r")`; `#### 3` ends the answer as in GSM8K.

Row i depends on (seed, split, kind, i) alone: the same everywhere, and the first n rows of any larger size. Every tenth
stem, with all its forms, is for the test split only.
"""

import random
import string
import zlib
from collections.abc import Iterator

from nanohf.data.toy_world.lexicon import JOBS, MEMBERS

KINDS = ("spelling", "letter_counting")
SPLITS = ("train", "test")

NOUNS = """
account actor afternoon airport animal answer apartment arm arrow article artist aunt autumn bandage banana banner
barrel basement bathroom battery bedroom bicycle bird blanket boat bottle bridge brother bucket builder butcher button
cabin camera candle captain carpet castle caterpillar ceiling chair chapter chicken chocolate cinema circle cloud
coffee colour comet computer corner cottage cucumber cupboard curtain customer daughter desert diamond dictionary
dinosaur doctor dollar dolphin dragon drawer driver eagle earring eggplant elbow elephant engine engineer envelope
evening factory farmer feather festival finger firework flamingo flavour forest fountain friend garden giraffe
grandmother grasshopper guitar hammer handle harbour helicopter hospital hotel hour house island jacket jewel journey
kangaroo kettle key keyboard kilometre kitchen ladder lantern lemonade lesson letter lizard machine magazine market
mattress meadow melody message millimetre minute mirror moment monkey month mosquito motor mountain muffin museum
neighbour newspaper notebook number nurse ocean octopus office orchard package painter palace pancake parrot passenger
pebble penguin pepper picture pillow pirate planet pocket pool postcard professor programmer pumpkin puzzle pyramid
question rabbit raccoon rainbow raspberry rectangle restaurant river road robot rocket room saddle sandwich scooter
season secret shadow shoulder sister skeleton soldier spider squirrel station storm strawberry street student subway
suitcase summer sunflower sweater swimmer symbol telephone telescope temple theatre thunderstorm ticket tiger tractor
train traveller treasure triangle tunnel umbrella uncle village violin volcano waiter wallet waterfall weekend whisper
window winner winter wizard woodpecker yoghurt zebra
"""
VERBS = """
accept add allow answer appear ask attack avoid believe borrow boil book call clean climb collect colour complain
connect consider cook count cover defend deliver discover display doubt enjoy enter explain fail fasten fill float
fold follow gather happen help hunt inform instruct invent iron join jump knock last laugh lean learn lift list listen
load look melt mention mix need offer open order own pack paint pass pick plant play point polish possess pour prevent
print pronounce protect pull push reach record remember repair repeat report return rush scream search shout shower
sort sound spill start succeed suffer suggest talk test thank touch trust turn visit wait walk wander warn wash watch
water whistle wonder work yell
"""
ADJECTIVES = """
beautiful brave bright careful cheerful clear clever cold common correct curious dangerous deep different eager
excellent famous fierce foolish fresh friendly generous gentle glorious grateful great honest huge immediate important
interesting jealous kind large loose loud mysterious narrow natural nervous obvious ordinary patient peaceful perfect
pleasant polite powerful precious proud quick quiet rapid ridiculous serious sharp silent silly simple slow smooth
soft sour special splendid strange strict successful sudden sweet tender terrible thick useful usual various warm weak
wicked wise
"""
OTHERS = """
above across afterwards again although always anybody around because become before behind below beneath between beyond
certainly committee during eight eighteen eighty either embarrass enough everything forty fourteen furniture happiness
homework hundred information instead knowledge lightning mathematics maybe mischief mostly neither never nineteen
nothing occasionally often parallel perhaps physics rather recommend rhythm seldom seventeen seventy several sometimes
somewhere soon spaghetti tennis thirteen thirty thousand through together tomorrow tonight towards twelve twenty
underneath usually weather whatever whenever without yesterday
"""
ENDINGS = ((NOUNS, ("", "s")), (VERBS, ("", "ing")), (ADJECTIVES, ("",)), (OTHERS, ("",)))

QUOTES = ("{}", '"{}"', "'{}'")
SPELL = (
    "Spell the word {word}.",
    "Please spell {word}.",
    "How do you spell {word}?",
    "How is the word {word} spelled?",
    "Can you spell {word} for me?",
    "Spell {word} letter by letter.",
    "What are the letters of the word {word}?",
)
SPELLED = (
    'The word "{word}" is spelled {letters}.',
    '"{word}" is spelled {letters}.',
    "It is spelled {letters}.",
    "{letters}",
)
COUNT = (
    "How many {letter} are in the word {word}?",
    "How many {letter} are there in {word}?",
    "How many letters {letter} does the word {word} have?",
    "How many times does the letter {letter} occur in {word}?",
    "How often does {letter} appear in the word {word}?",
    "Count the letter {letter} in {word}.",
    "Count how many {letter} there are in the word {word}.",
    "In the word {word}, how many {letter} are there?",
    "What is the number of {letter} in {word}?",
)
COUNTED = (
    'The letter "{letter}" occurs {times} in "{word}".',
    'The word "{word}" has the letter "{letter}" {times}.',
    'So "{letter}" is in "{word}" {times}.',
)


def rows(kind: str, split: str, size: int, seed: int = 0) -> Iterator[dict]:
    """Conversations {messages: [{role, content: [{type, text}, ...]}, ...]} of one question and its answer."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not a kind of spelling example. Use one of: {', '.join(KINDS)}.")
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not a split of the words. Use one of: {', '.join(SPLITS)}.")
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size={size!r} is not a number of rows, an integer of at least 1. Try 1000.")
    make = {"spelling": spelling, "letter_counting": letter_counting}[kind]
    chosen = words(split)
    draws = (random.Random(f"{seed}/{split}/{kind}/{index}") for index in range(size))
    return (_conversation(*make(rng, rng.choice(chosen))) for rng in draws)


def words(split: str) -> list[str]:
    """The words of a split, in alphabetical order."""
    stems = {}
    for one in [m.name for m in MEMBERS["word"]] + [job.one for job in JOBS]:
        stems[one] = one
    for text, endings in ENDINGS:
        for stem in text.split():
            for ending in endings:
                stems.setdefault(with_ending(stem, ending), stem)
    return sorted(word for word, stem in stems.items() if (zlib.crc32(stem.encode()) % 10 == 0) == (split == "test"))


def with_ending(stem: str, ending: str) -> str:
    """The stem with -s or -ing, as far as the words here need it."""
    if ending == "s" and stem.endswith("y") and stem[-2] not in "aeiou":
        return stem[:-1] + "ies"
    if ending == "s" and (stem.endswith(("s", "ch", "sh", "x")) or stem in ("mosquito", "volcano")):
        return stem + "es"
    if ending == "ing" and stem.endswith("e"):
        return stem[:-1] + "ing"
    return stem + ending


def spelling(rng: random.Random, word: str) -> tuple[str, list[dict]]:
    """The question and the parts of its answer."""
    question = rng.choice(SPELL).format(word=_quoted(rng, word))
    return question, [_part("text", rng.choice(SPELLED).format(word=word, letters="-".join(word)))]


def letter_counting(rng: random.Random, word: str) -> tuple[str, list[dict]]:
    """The question and the parts of its answer; one letter in ten is any letter, so nearly always not in the word."""
    letter = rng.choice(string.ascii_lowercase if rng.random() < 0.1 else word)
    count = word.count(letter)
    times = "1 time" if count == 1 else f"{count} times"
    question = rng.choice(COUNT).format(word=_quoted(rng, word), letter=rng.choice(QUOTES[1:]).format(letter))
    return question, [
        _part("text", f'The word "{word}" is spelled {"-".join(word)}.\nCounting "{letter}": '),
        _part("python", f'"{word}".count("{letter}")'),
        _part("python_output", str(count)),
        _part("text", f"\n{rng.choice(COUNTED).format(word=word, letter=letter, times=times)}\n#### {count}"),
    ]


def _quoted(rng: random.Random, word: str) -> str:
    return rng.choice(QUOTES).format(word)


def _part(kind: str, text: str) -> dict:
    return {"type": kind, "text": text}


def _conversation(question: str, answer: list[dict]) -> dict:
    messages = [
        {"role": "user", "content": [_part("text", question)]},
        {"role": "assistant", "content": answer},
    ]
    return {"messages": messages}
