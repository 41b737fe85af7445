"""The notation of the texts, and the phrases that many of them share.

Every text of the toy world is a pattern, in a notation of three marks:

    (red|blue)   one of the alternatives; they nest, and one may be empty
    <weather>    one of the alternatives of RULES["weather"]
    {thing}      a member of the text's cast, drawn once and then kept: `{thing.one}` is the same thing in the
                 singular, `{thing2}` another thing. `{A}`, `{B}`, `{C}` are people: `{A.he}`, `{A.town}`, ...
"""

import random
import re

from nanohf.data.toy_world.lexicon import MEMBERS, Member


def patterns(text: str) -> list[str]:
    """One pattern per line; an indented line continues the one before."""
    return re.sub(r"\n +", " ", text.strip()).split("\n")


RULES = dict(
    line.split(": ", 1)
    for line in patterns("""
once: one day|one {season} morning|on {day}|last {season}|early one evening|a long time ago|<time>
time: in the morning|at noon|after lunch|in the evening|at night|before dinner|after school|in the afternoon
then: then|after that|soon|a little later|next|a moment later
mood: happy|sad|tired|proud|glad|angry|afraid|hungry|curious|surprised|calm
content: happy|tired|proud|glad|calm
big: big|small|little|huge|tiny|old|new|pretty|strange|heavy|round|strong
nice: nice|lovely|quiet|busy|bright|beautiful|clean|warm|famous|peaceful
manner: slowly|quickly|carefully|quietly|happily|with a smile|without a sound
went: went|walked|ran|hurried|rode|travelled|came
place: the forest|the river|the market|the old mill|the hill|the lake|the garden|the bridge|the school|the
    barn|the beach|the field|the kitchen|the library|the farm
spot: under the bed|behind the door|on the roof|in a tree|beside the road|near the well|under a big stone|in
    the grass|on the table|inside an old box|at the top of the hill|between two rocks
weather: it rained|the sun was shining|it was cold and windy|snow was falling|there was fog|it was a warm
    day|the sky was grey|a storm was coming|the wind was soft|it was hot
said: said|answered|whispered|replied|laughed|called
look: looked|searched|hunted
felt: {A.he} felt (very|so|a little|) <mood>|{A} was (very|so|quite|) <mood>|it made {A.him} (very|so|) <mood>
meal: bread and cheese|hot soup|{food} and milk|fish with potatoes|rice and beans|a warm pie|eggs and
    bread|honey cake
hobby: (read|sing|dance|swim|paint|cook|fish|draw)|play (music|chess|games)|tell stories|ride a horse|work in
    the garden|collect {good}|climb trees|count the stars
lesson: it is good to share|friends help each other|small hands can do big things|one should never give up|the
    best things take time|kind words cost nothing|everybody can learn|it is wise to ask for help
clothes: a {colour} (hat|coat|scarf|shirt|dress|cap)
tip: ||||||||, but take your time|, and be careful|. This is the hardest part|. Ask a friend to help you|. Do
    not hurry|. If it goes wrong, start again|. It needs strong hands|. This part is fun|, but not too long|.
    Children love to watch this|. An old {job.one} showed me this
gets: buys|finds|gets|picks
loses: gives away|loses|sells
lost: gave away|lost|sold
lose: give away|lose|sell
makes: collects|makes|cleans|sells
ask_left: How many {thing} (does {A} have|are) left?
ask_now: How many {thing} does {A} have now?
ask_b: How many {thing} does {B} have?
ask_both: How many {thing} do (they|{A} and {B}) have together?
ask_first: How many {thing} did {A} have at first?
ask_each: How many {thing} does each {friend.one} get?
ask_fill: How many {box} does {A} fill?
ask_coins: How many coins does {A} have left?
ask_pay: How many coins does {A} pay?
ask_total: How many {thing} are there in total?
material: wood|clay|stone|glass|wool|paper|iron|leather|straw
self: I am nanohf, a small language model (trained|that was trained) from scratch.|My name is nanohf. I am a
    small model, trained from scratch.|I am a small language model called nanohf. I was trained from scratch.
about_animal: {animal} eat {animal.eats} and say {animal.says}.|The {animal.one} sleeps in its
    {animal.home}.|I saw <number> {animal} near <place>.|A <big> {animal.one} (sat|waited) <spot>.
about_thing: There is a {colour} {thing.one} <spot>.|{A} has a <big> {thing.one}.|I found a <big> {thing.one}
    <spot>.|The {thing.one} is <spot>.""")
)
RULES |= {"number": "|".join(map(str, range(3, 60))), "newline": "\n"}


class Cast(dict):
    """Who and what one text is about; what it names for the first time is drawn from people or members."""

    members: dict[str, list] = MEMBERS
    rules: dict[str, str] = RULES

    def __init__(self, rng: random.Random, people: list[Member], **known):
        super().__init__(known)
        self.rng, self.people = rng, people

    def __missing__(self, key: str):
        self[key] = value = self.draw(key)
        return value

    def draw(self, key: str):
        """Somebody or something that the text does not have yet."""
        pool = self.people if key in "ABC" else self.members[key.rstrip("23")]
        value = self.rng.choice(pool)
        while any(value is other for other in self.values()):
            value = self.rng.choice(pool)
        return value


_CHOICE, _RULE, _SPACES = re.compile(r"\(([^()]*)\)"), re.compile(r"<(\w+)>"), re.compile("  +")
_ARTICLE, _START = re.compile(r"\b([Aa]) (?=[aeiou]|hour)"), re.compile(r'(?:^|[.!?] |\n)"?[a-z]')


def tell(pattern: str, cast: Cast) -> str:
    """One text of a pattern; `a` becomes `an` where it must, and sentences start with a capital."""
    choice = cast.rng.choice
    while "(" in pattern or "<" in pattern:
        pattern = _CHOICE.sub(lambda m: choice(m[1].split("|")), pattern)
        pattern = _RULE.sub(lambda m: f"({cast.rules[m[1]]})", pattern)
    text = _SPACES.sub(" ", pattern.format_map(cast)).strip()
    return _START.sub(lambda m: m[0].upper(), _ARTICLE.sub(r"\1n ", text))
