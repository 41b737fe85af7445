"""The people, things, places, holders and rates of school problems, each with the words that go with it."""

from nanohf.data.toy_world.grammar import patterns
from nanohf.data.toy_world.lexicon import Member, nouns, table

PRONOUNS = ({"he": "she", "him": "her", "his": "her"}, {"he": "he", "him": "him", "his": "his"})


def people(names: str) -> list[Member]:
    """She, he, she, he, ..."""
    return [Member(name=name, **PRONOUNS[i % 2]) for i, name in enumerate(names.split())]


TRAIN_PEOPLE = people("""
    Mia Tom Anna Ben Lily Sam Rosa Max Ella Leo Nora Jack Ida Finn Clara Hugo Emma Paul Vera Otto Ruth Nick Zoe Karl
    Sarah Mike Jenny David Amy John Kate Peter Lucy Carlos Grace Henry Maria James Hannah Luis Olivia Mark Alice Noah
    Megan Ryan Laura Kevin Holly Oliver Dana Frank Priya Omar Helen George Sue Robert Jane Tim Betty Joe Wendy Ali
    Molly Fred Keiko Juan Beth Dylan Tara Simon""")
TEST_PEOPLE = people("Lena Oscar Tina Adam Maya Eric Sofia Ivan Julia Ralph Alma Dan Nina Victor Paula Isaac")


def things(got: str, lost: str, words: str) -> list[Member]:
    """One kind of thing: how people come by it and part with it, in the past, and its nouns; `_` is a space."""
    verbs = {"got": got.split(", "), "lost": lost.split(", ")}
    named = [(noun.name.replace("_", " "), noun.one.replace("_", " ")) for noun in nouns(words)]
    return [Member(name=name, one=one, kind=words, **verbs) for name, one in named]


THINGS = [
    *things(
        "picked, bought, found, got, gathered",
        "ate, gave away, sold, used, threw out",
        "apple orange pear peach:peaches plum lemon banana mango:mangoes melon cherry:cherries lime fig kiwi "
        "strawberry:strawberries blueberry:blueberries raspberry:raspberries watermelon apricot coconut nut",
    ),
    *things(
        "picked, bought, grew, dug up, got",
        "ate, gave away, sold, used, cooked",
        "carrot potato:potatoes tomato:tomatoes onion pumpkin cucumber turnip beet pepper cabbage radish:radishes "
        "bean mushroom squash:squashes",
    ),
    *things(
        "baked, made, bought, got",
        "ate, gave away, sold, shared",
        "cookie cupcake muffin cake pie brownie roll pancake donut sandwich:sandwiches pizza bagel pretzel waffle "
        "biscuit tart",
    ),
    *things(
        "bought, got, won, received",
        "ate, gave away, shared, lost",
        "candy:candies lollipop gumball chocolate candy_bar jelly_bean mint piece_of_candy:pieces_of_candy caramel",
    ),
    *things(
        "bought, got, won, found, received",
        "lost, gave away, sold, broke, traded",
        "marble ball doll toy_car block kite balloon puzzle yo-yo video_game teddy_bear robot drum game toy whistle",
    ),
    *things(
        "found, collected, bought, got, received",
        "lost, gave away, sold, traded, threw away",
        "sticker stamp baseball_card trading_card coin seashell shell rock button feather bead bottle_cap postcard "
        "badge magnet pebble leaf:leaves bracelet photo",
    ),
    *things(
        "bought, got, found, received",
        "used, lost, gave away, broke",
        "pencil pen crayon eraser notebook marker ruler folder paper_clip brush:brushes envelope "
        "piece_of_chalk:pieces_of_chalk sheet_of_paper:sheets_of_paper",
    ),
    *things("bought, borrowed, got, found", "returned, sold, gave away, lost", "book comic magazine map"),
    *things(
        "picked, planted, bought, grew",
        "gave away, sold, threw away, cut",
        "flower rose tulip daisy:daisies lily:lilies sunflower plant",
    ),
    *things(
        "bought, got, made, found",
        "sold, gave away, lost, donated",
        "shirt sock hat scarf:scarves coat towel dress:dresses cap ribbon blanket pillow bow",
    ),
    *things(
        "bought, found, got, received",
        "broke, used, sold, lost, gave away",
        "bottle cup plate candle spoon lamp battery:batteries nail brick key egg bottle_of_water:bottles_of_water",
    ),
    *things("won, earned, bought, got", "spent, used, lost, gave away", "ticket token coupon point"),
]

MEMBERS: dict[str, list] = {
    "thing": THINGS,
    "spot": table(
        "name one place come go",
        """
ducks, duck, in the pond, swim over, swim away; birds, bird, in the tree, fly in, fly away
fish, fish, in the tank, are put in, are taken out; children, child, on the bus, get on, get off
people, person, on the train, get on, get off; people, person, in the room, come in, leave
students, student, in the class, join, leave; cars, car, in the parking lot, drive in, drive away
sheep, sheep, in the field, come in, run away; books, book, on the shelf, are put there, are taken away
cookies, cookie, in the jar, are put in, are eaten; trees, tree, in the park, are planted, are cut down
boats, boat, in the harbor, arrive, leave; puppies, puppy, in the shelter, are brought in, find a home
coins, coin, in the box, are added, are taken out; pencils, pencil, in the drawer, are put in, are taken out
balls, ball, in the basket, are put in, are taken out; plates, plate, on the table, are added, are taken away
frogs, frog, on the log, hop on, hop off; kids, kid, at the park, arrive, go home
players, player, on the field, join, leave; bees, bee, near the flowers, arrive, fly off
apples, apple, in the bowl, are added, are eaten; toys, toy, on the floor, fall down, are picked up
guests, guest, at the party, arrive, go home; horses, horse, in the barn, are brought in, are led out
flowers, flower, in the vase, are added, are taken out; bikes, bike, at the shop, are delivered, are sold""",
    ),
    "holder": table(  # of what it holds
        "name one of",
        """
buses, bus, students; vans, van, people; rows, row, chairs; rows, row, plants; pages, page, pictures
shelves, shelf, books; tables, table, children; teams, team, players; cages, cage, rabbits; trees, tree, apples
tanks, tank, fish; nests, nest, eggs; packs, pack, cards; cartons, carton, eggs; classes, class, students
boxes, box, crayons; boxes, box, cookies; bags, bag, oranges; bags, bag, marbles; jars, jar, beads
baskets, basket, peaches; crates, crate, bottles; trays, tray, muffins; piles, pile, leaves; drawers, drawer, socks
walls, wall, paintings; boats, boat, people; bunches, bunch, bananas; racks, rack, coats; albums, album, photos
vases, vase, roses; rooms, room, beds; packages, package, pens; gardens, garden, bushes; cars, car, people
books, book, chapters; levels, level, coins; bowls, bowl, strawberries; cases, case, toys; stacks, stack, plates""",
    ),
    "rate": table(  # do, does, did so many things per unit of time
        "do name did of per one",
        """
read, reads, read, pages, days, day; read, reads, read, books, months, month
bake, bakes, baked, cookies, hours, hour; make, makes, made, cakes, days, day
walk, walks, walked, miles, days, day; run, runs, ran, laps, days, day
drive, drives, drove, miles, hours, hour; ride, rides, rode, miles, hours, hour
earn, earns, earned, dollars, hours, hour; earn, earns, earned, dollars, weeks, week
save, saves, saved, dollars, months, month; save, saves, saved, dollars, weeks, week
paint, paints, painted, pictures, weeks, week; write, writes, wrote, letters, weeks, week
pick, picks, picked, apples, hours, hour; plant, plants, planted, trees, days, day
sell, sells, sold, newspapers, days, day; wash, washes, washed, cars, days, day
collect, collects, collected, eggs, days, day; type, types, typed, words, minutes, minute
swim, swims, swam, laps, days, day; drink, drinks, drank, glasses of water, days, day
fold, folds, folded, shirts, minutes, minute; build, builds, built, toys, weeks, week
solve, solves, solved, puzzles, days, day; learn, learns, learned, words, weeks, week""",
    ),
    "box": nouns("box:boxes bag basket crate tray jar bowl bucket pack pile"),
    "friend": nouns("friend child:children student cousin neighbor classmate"),
    "kin": ["brother", "sister", "mother", "father", "friend", "uncle", "aunt", "teacher", "cousin", "grandmother"],
    "color": ["red", "blue", "green", "yellow", "white", "black", "brown", "pink", "orange", "purple"],
    "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "shop": ["shop", "market", "store", "fair", "toy store", "garage sale", "mall", "school sale"],
    "job": table(
        "name each",
        """
washing cars, car; walking dogs, dog; mowing lawns, lawn; cleaning rooms, room; painting fences, fence
selling newspapers, newspaper; delivering packages, package; raking yards, yard; fixing bikes, bike""",
    ),
    "length": table("name", "meters; feet; inches; yards; centimeters"),
    "long": table("name", "ribbon; rope; string; board; pipe; wire; stick; chain"),
    "fluid": table("name", "water; milk; juice; lemonade; paint; oil; soup; sugar; flour; sand"),
    "measure": table("name", "cups; liters; gallons; buckets; spoons; bottles"),
    "bought": table(
        "name", "a shirt; a jacket; a book; a toy; a game; a hat; a lamp; a ball; lunch; a ticket; a bag; a cake"
    ),
}

RULES = dict(
    line.split(": ", 1)
    for line in patterns("""
had: had|has|owns
total: in all|altogether|in total|all together
where: ||| on {day}| last week| at the {shop}| yesterday| in the morning
later: then|later|after that|the next day|that afternoon|on {day}|a week later
equally: equally|evenly|fairly
source: ||| from {A.his} {kin}| from {B}| as a gift
gain: {A.he} {thing.got} <more>|{B} gave {A.him} <more>|{A.his} {kin} gave {A.him} <more>|{A.he} got <more><source>
more: {b} more {thing}|{b} more|another {b} {thing}|another {b}
loss: {A.he} {thing.lost} {b} of them|{A.he} {thing.lost} {b} {thing}|{A.he} gave {b} of them to ({B}|{A.his} {kin})
ask_now: How many {thing} does {A} have now?|How many {thing} does {A} have <total>?|How many {thing} are there
    now?|What is the number of {thing} {A} has now?|Find the number of {thing} that {A} has now.
ask_left: How many {thing} does {A} have left?|How many {thing} are left?|How many {thing} does {A} still
    have?|How many {thing} remain?|How many {thing} does {A} have now?
ask_total: How many {thing} (are there|do they have|did they get) <total>?|What is the total number of {thing}?
ask_each: How many {thing} does each {friend.one} get?|How many {thing} will each {friend.one} get?|How many {thing}
    are there for each {friend.one}?
ask_dollars: How much money does {A} have left?|How many dollars does {A} have left?|How much is left?|How much money
    is left over?
ask_paid: How much did {A} pay <total>?|How much did {A} spend?|How many dollars did {A} spend <total>?|How much money
    did {A} spend <total>?|What was the total cost?
aside: {A} is {e} years old.|{A} also <had> {e} {thing2}.|{B} has {e} {thing2}.|There are {e} {friend} in {A.his}
    class.|It is {e} miles to the {shop}.""")
)
