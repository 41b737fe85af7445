"""The people, places and things of the toy world, and the facts about them.

Facts (who lives where, what a cow says, which town is the capital) are the attributes of these members, so
documents and conversations cannot contradict each other.
"""

import re
from types import SimpleNamespace


class Member(SimpleNamespace):
    """A person, a place or a thing; its other columns are attributes."""

    def __str__(self) -> str:
        return self.name


def nouns(words: str) -> list[Member]:
    """`apple berry:berries` as members that print in the plural and have the singular as `.one`."""
    pairs = (word.partition(":") for word in words.split())
    return [Member(name=many or f"{one}s", one=one) for one, _, many in pairs]


def table(columns: str, text: str) -> list[Member]:
    """One member per line, or several with `;` between them."""
    rows = (re.split(", *", row) for row in re.split("; *|\n", text.strip()))
    return [Member(**dict(zip(columns.split(), row, strict=True))) for row in rows]


LANDS = table(
    "name capital river flag",
    """
Norland, Highford, Ash, blue
Westria, Stonebridge, Wren, red
Sundale, Goldport, Amber, yellow
Easterlee, Whitecliff, Fern, green""",
)

TOWNS = table(
    "name land sight known",
    """
Highford, Norland, an old castle, its blue glass
Millbrook, Norland, a water mill, its good bread
Stonebridge, Westria, a long stone bridge, its clocks
Greenfield, Westria, a round green park, its sweet honey
Goldport, Sundale, a harbour with a lighthouse, its fresh fish
Appleton, Sundale, a garden full of fruit trees, its red apples
Whitecliff, Easterlee, a tall white tower, its warm wool
Foxwood, Easterlee, a deep forest, its wooden toys""",
)

ANIMALS = table(
    "name one says home eats colour",
    """
cows, cow, moo, barn, grass, brown
sheep, sheep, baa, field, grass, white
dogs, dog, woof, yard, meat, black
cats, cat, meow, house, fish, grey
ducks, duck, quack, pond, bread, yellow
horses, horse, neigh, stable, hay, brown
pigs, pig, oink, pen, potatoes, pink
hens, hen, cluck, coop, corn, red
owls, owl, hoot, tree, mice, brown
frogs, frog, croak, pond, flies, green
bees, bee, buzz, hive, honey, yellow
mice, mouse, squeak, hole, cheese, grey
lions, lion, roar, cave, meat, golden
crows, crow, caw, tree, seeds, black
goats, goat, bleat, shed, leaves, white
bears, bear, growl, forest, berries, brown""",
)

JOBS = table(
    "name one makes tool place",
    """
bakers, baker, bread, oven, bakery
farmers, farmer, corn, plough, field
potters, potter, bowls, wheel, workshop
weavers, weaver, cloth, loom, workshop
smiths, smith, nails, hammer, forge
gardeners, gardener, soup from fresh vegetables, spade, garden
carpenters, carpenter, chairs, saw, workshop
fishers, fisher, nets, boat, harbour
shepherds, shepherd, cheese, whistle, valley
tailors, tailor, coats, needle, shop
teachers, teacher, good lessons, chalk, school""",
)

COLOURED = table(
    "name hue",
    """
grass, green; the sky, blue; snow, white; coal, black; the sun, yellow; blood, red; chocolate, brown
a lemon, yellow; a carrot, orange; a cloud, white; a leaf, green; the sea, blue""",
)

OPPOSITES = table(
    "name of",
    """
hot, cold; big, small; fast, slow; old, young; day, night; up, down; open, closed; wet, dry; happy, sad
long, short; light, dark; full, empty; early, late; strong, weak; loud, quiet; near, far""",
)

DAYS = table(
    "name next before",
    """
Monday, Tuesday, Sunday; Tuesday, Wednesday, Monday; Wednesday, Thursday, Tuesday
Thursday, Friday, Wednesday; Friday, Saturday, Thursday; Saturday, Sunday, Friday
Sunday, Monday, Saturday""",
)

FOODS = nouns(
    "apple pear plum lemon orange egg nut berry:berries carrot potato:potatoes onion cookie cake "
    "bean peach:peaches tomato:tomatoes cherry:cherries pie melon mushroom"
)
GOODS = nouns(
    "shell stone button bead card pencil book cup candle bell marble flower sticker stamp balloon "
    "kite hat spoon brush:brushes ribbon feather toy ball"
)


def people(start: int, names: str) -> list[Member]:
    """She, he, she, he, ...; where they live and what they do follow from their number, counted from `start`."""
    pronouns = [{"he": "she", "him": "her", "his": "her"}, {"he": "he", "him": "him", "his": "his"}]
    return [
        Member(
            name=name,
            **pronouns[i % 2],
            town=TOWNS[i * 3 % 8],
            job=JOBS[i % 11],
            pet=ANIMALS[i * 5 % 16],
            colour=LANDS[i // 3 % 4].flag,
        )
        for i, name in enumerate(names.split(), start)
    ]


# Train problems are about the first cast, test problems about the second, documents about both.
TRAIN_PEOPLE = people(
    0,
    "Mia Tom Anna Ben Lily Sam Rosa Max Ella Leo Nora Jack Ida Finn Clara Hugo Emma Paul Vera Otto Ruth Nick Zoe Karl",
)
TEST_PEOPLE = people(24, "Lena Oscar Tina Adam Maya Eric Sofia Ivan Julia Ralph Alma Dan")
EVERYBODY = TRAIN_PEOPLE + TEST_PEOPLE

MEMBERS: dict[str, list] = {
    "land": LANDS,
    "town": TOWNS,
    "animal": ANIMALS,
    "job": JOBS,
    "coloured": COLOURED,
    "opposite": OPPOSITES,
    "day": DAYS,
    "food": FOODS,
    "thing": FOODS + GOODS,
    "good": GOODS,
    "box": nouns("box:boxes bag basket crate tray sack"),
    "friend": nouns("friend child:children neighbour cousin"),
    "colour": ["red", "blue", "green", "yellow", "white", "black", "brown", "grey"],
    "season": ["spring", "summer", "autumn", "winter"],
    "word": [
        Member(name=word, spelled="-".join(word))
        for word in [m.one for m in (*ANIMALS, *FOODS, *GOODS)] + [o.name for o in OPPOSITES]
    ],
    "saying": [
        "The moon is bright tonight.",
        "Seven bees sing in the tree.",
        "I like warm bread.",
        "Rain makes the garden grow.",
        "A good friend is never far.",
        "The little boat goes home.",
        "One step at a time.",
        "Every day is a new day.",
        "The cat sleeps on the mat.",
    ],
}
