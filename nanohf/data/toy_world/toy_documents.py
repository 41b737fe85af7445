"""Documents: the genres with their sentences, and how one document is made of them."""

import random
import re
from typing import NamedTuple

from nanohf.data.toy_world.grammar import Cast, patterns, tell
from nanohf.data.toy_world.lexicon import EVERYBODY
from nanohf.data.toy_world.toy_word_problems import ONE_STEP, TWO_STEP


def document(rng: random.Random, split: str) -> dict:
    """An opening, as much of the genre's body as fits, an ending; every third document counts things."""
    counts = rng.random() < 1 / 3
    genre = rng.choice(COUNTING if counts else rng.choice(GENRES))
    cast = Cast(rng, EVERYBODY)
    opening, ending = tell(rng.choice(genre.opening), cast), rng.choice(genre.ending)
    words_left = rng.randint(70, 170) - len(opening.split())
    sentences = {}  # by their place in the genre
    for place in rng.sample(range(len(genre.body)), len(genre.body)):
        if words_left > 0 or genre.whole:
            sentences[place] = tell(genre.body[place], cast)
            if counts:
                sentences[place] += " " + passage(rng, split, cast)
            words_left -= len(sentences[place].split())
    order = sentences if genre.shuffled else sorted(sentences)
    return {"text": " ".join([opening, *(sentences[place] for place in order), tell(ending, cast)])}


def passage(rng: random.Random, split: str, cast: Cast) -> str:
    """A word problem with numbers of the split, told as prose with its result, about the people of a document."""
    template = rng.choice(rng.choice((ONE_STEP, ONE_STEP, TWO_STEP)))
    cast = Cast(rng, cast.people, A=cast["A"], B=cast["B"], **template.draw(rng, split))
    question = tell(rng.choice(template.questions), cast)
    form = rng.choice(("{result}", "{result}", "{x} {sign} {y} = {result}"))
    story, _, ask = question.rpartition(". ")
    if story and not re.search(r"\d", ask) and rng.random() < 0.6:
        told = story + template.solution(cast, form, rng.choice((". ", ". So ", ". That means ")))
    else:
        told = f"{question} {template.solution(cast, form)}"
    return told.replace("\n", " ")


# ---------------------------------------------------------------- the genres


class Genre(NamedTuple):
    """What documents of one genre are made of: one opening, some of the body in its order, one ending."""

    opening: list[str]
    body: list[str]
    ending: list[str]
    shuffled: bool = False  # the body's sentences stand alone, in any order
    whole: bool = False  # the body makes sense only as a whole


def genre(text: str, **how: bool) -> Genre:
    opening, body, ending = (patterns(part) for part in text.split("\n\n"))
    return Genre(opening, body, ending, **how)


STORY = genre("""
<once>, {A} <went> to <place> (with {A.his} {A.pet.one}|with {B}|to find some {food}).
(Once there was|There was once) a {A.job.one} (named|called) {A}. {A.he} lived in {A.town} and had a <big>
    {A.pet.one}.
{A} lived in a <big> house near <place>. <once>, {A.he} (woke up early|could not sleep|heard a <big> noise).
{A} and {B} were good friends. <once> they <went> to <place> together.

<weather>, (and|but|so) {A} (put on|wore) <clothes>.
{A} (wanted|hoped|planned) to (find|buy|make|see) a <big> {thing.one}, (but|and) nobody knew where to look.
On the way {A.he} (met|saw|found) a <big> {animal2.one}. It (sat|stood|slept|waited) <spot>. "{animal2.says},
    {animal2.says}!" said the {animal2.one}. It was looking for {animal2.eats}(, and it was very hungry|).
<felt>, (because|for) the {thing.one} was (gone|lost|broken|too heavy to carry|not there).
{B} (noticed|heard|saw) it. "(What is wrong|Why are you here|Can I help you|What happened), {A}?" {B.he}
    asked.
"I have lost my {thing.one}," <said> {A}. "(Will you help me|Can you see it|Do you know where it is)?"
    "(Of course|Yes|Do not worry)," <said> {B}. "We (can|will|should) look together."
They <look> (everywhere, even|here and there, and also) <spot>, (but they found only|and they found) a
    {colour} {good.one}.
<then> {A} <went> <manner> (to|back to|past|around) <place>, (because|where) the path was
    (short|long|dark|easy).
{B} gave {A} some {food2}, and they (ate|rested|talked|laughed) <spot>.
At last they (saw|found) the {thing.one} <spot>. It was (wet|safe|dirty|clean|as good as new).
{A} (shouted|jumped|smiled|danced) with joy(, and {B} laughed| and thanked {B}|).

They <went> home, ate <meal>, and slept well.
From that day on, {A} (knew|remembered) that <lesson>.
(In the end|At last) everybody was <content>.
{A} never forgot that day. {A.he} told the story to (all {A.his} friends|everyone in {A.town}).""")

FABLE = genre("""
A <big> {animal.one} and a <big> {animal2.one} lived (near|beside|behind) <place>.
<once>, a {animal.one} met a {animal2.one} near <place>.
There was a {animal.one} who (was always|felt) <mood>. Its only friend was a {animal2.one}.

"I am (stronger|faster|wiser|older) than you," said the {animal.one}. "{animal.says}!"
The {animal2.one} (did not answer|only smiled|thought for a while). It (ate|looked for) {animal2.eats} (and
    waited|in the grass|all day).
<then> <weather>, and the {animal.one} (hid|ran|jumped|slept) in its {animal.home}.
"(Please|Friend), (give|bring|show) me some {animal.eats}," the {animal.one} said. "I have had nothing (since
    morning|for two days)."
"If you help me, I will help you," <said> the {animal2.one}.
So the {animal.one} carried the {animal2.one} (across|over) the river(, although it was deep|, step by step|).
A {colour} bird (saw|heard) them and (sang|flew away|told all the other animals).
They found a {thing.one} <spot>, (but neither|and both) of them wanted it.
A hunter came (near|by) with a <big> net. The {animal2.one} called "{animal2.says}" as loud as it could, and
    (so|then) the hunter (ran away|was afraid).
(Since|After) that day the {animal.one} and the {animal2.one} (shared|looked for) their food together.

The {animal.one} learned that <lesson>.
"You were right," said the {animal.one}. "<lesson>."
And so we see that <lesson>.""")

PLACE = genre("""
{town} is a (town|<nice> town) in {town.land}. It is known for {town.known}.
If you (travel|go|come) to {town.land}, you (should|must) see {town}. It has {town.sight}.
There is a <nice> (market|street|square) in {town}, a town in {town.land}.

(In the middle of|Near) the town there is {town.sight}, and {town.known} can be seen (everywhere|in every
    shop).
About <number> (families|people|children) live (near|around|behind) <place>.
The houses are made of <material>, and (most|some|many) of them have {colour} (roofs|doors|windows).
(In|During) {season} the streets are <nice>, but in {season2} they are (empty|full of people|covered with
    (leaves|snow)).
On {day} there is a market, where (farmers|people|women and men) sell {food}, {food2} and {good}.
{A}, (a|the) {A.job.one}, has a (shop|house|small room) here. {A.he} likes to <hobby>.
You can (hear|see) {animal} (on the hill|in the fields|by the river|in the park), and the children
    (feed|love|watch) them.
A <big> road goes (north|south|east|west) from {town} to {town2}. The way takes <number> minutes (by cart|by
    horse|on foot).
The school has <number> (chairs|desks|windows) and a <nice> library with (many|old) books.
At night the lamps are (lit|bright), and people (sit|talk|sing) outside.
Old people say that a {animal2.one} once saved the town, (so|and) its picture is on the (gate|wall|tower).
Behind the (church|station|tower) is a garden where {food3} and {colour} flowers grow in long rows.

It is a <nice> place to live.
Everyone who (visits|leaves) {town} wants to come back.
That is why people in {town.land} love {town}.
The next town is {town2}(, but it is far away|).""")

DAY = genre("""
{day} was a (good|long|strange|busy|quiet) day.
In {season} the days are (long|short|warm|cold) in {A.town}.
<weather> when {A} woke up on {day}.
The weather (changed|was bad|was fine) <time>.

In the morning <weather>, so {A} stayed (inside|at home|in bed) and ate <meal>.
The (clouds|shadows|winds) moved <manner> over <place>.
{B} (came|called|knocked) at (nine|eight|ten) o'clock and (brought|carried|wanted) a {good.one}.
(When|As soon as) the rain stopped, the {animal} came out of the {animal.home} and looked for {animal.eats}.
At noon <weather>. The children (played|ran|shouted) near <place> until the bell rang.
{A} (washed|cleaned|repaired|painted) the (floor|fence|window|roof|cart), (because|while) {B}
    (cooked|slept|was away|worked).
(Although|Because) <weather>, {A} and {B} <went> to <place>.
<felt>, (and|but) {A.he} did not (say a word|complain|stop working|go home).
(In the afternoon|After lunch) the wind (turned|grew strong|fell), and the leaves (fell|danced|flew) through
    the air.
There was (ice|water|mud|dust) on the road, so the cart (stopped|went slowly|could not pass).
In the evening they lit a (fire|lamp|candle) and (read|told stories|played games|drank tea).
The moon (rose|was bright|was hidden), and an owl could be heard <spot>.

{A} (hoped|thought) that {day.next} would be (better|dry|just as good|warmer).
Then everybody went to sleep.
After {day} comes {day.next}, and then a new day begins.
It had been a (long|good|short) day.""")

LETTER = genre("""
Dear {A},<newline>(thank you for your letter|how are you|I hope you are well|I am writing from {town}|I have
    good news).
Dear {A},<newline>(it has been <number> days since we met|I miss you|today I have time to write).

(Last week|Yesterday|On {day}) I (visited|saw|went to) {town}. It has {town.sight}.
<weather>, so we (stayed at home|could not go out|went to <place>|had to wait).
My {animal.one} is (well|ill|getting big|as funny as ever). It (sleeps|plays|hides) <spot> and eats only
    {animal.eats}.
I have (bought|made|found|lost) a {colour} {thing.one}. (You would like it.|I will show it to you.|Do you
    want it?|It was not cheap.)
{C} (asks about you|says hello|is here too|is going to marry soon) and wants to <hobby> with (you|us).
Do you still (work as a {A.job.one}|live in {A.town}|like to <hobby>)? (Please tell me|I often think of it|I
    hope so).
The {food} in our garden are (ripe|small|sweet|sour) this year. I will (send|keep|bring) you some.
Next {season} we (could|should|will) travel to {town2} (together|by boat|by train), if you have time.
I am learning to <hobby>. It is (harder|easier|more fun) than I thought.
Yesterday I (broke|dropped|forgot) my {good.one}, and I was (very|a little|) <mood>. Can you (fix it|laugh
    about it|help me)?
My (brother|sister|mother|father|uncle|aunt) works as a {job.one} now and makes {job.makes}.

(Write soon|Come and see us|Take care|See you in {season}).<newline>(Your friend|With love|Best wishes), {B}
I must (stop|go) now.<newline>(Your friend|With love|Yours), {B}""")

DIARY = genre("""
{day}. Today (I got up early|I was late|was a good day|nothing went right|<weather>).
{day} <time>. I am sitting <spot> and (writing|thinking).

For breakfast I had <meal>. {A} had only {food}.
I (met|saw|helped) {A} near <place>. {A.he} (had|carried|wore) <clothes> and looked <mood>.
We (talked|laughed|worked) for <number> minutes. {A} told me that {A.he} (lives in {A.town}|is a
    {A.job.one}|has a {A.pet.one}).
I wanted to (buy|sell|find) a {thing.one}, but (the shop was closed|I had no money|there were none|it was too
    late).
<then> <weather>, (and|so) I ran (home|under a tree|to <place>).
Our {animal.one} was (loud|lazy|hungry) again: {animal.says}, {animal.says}, {animal.says}! I gave it some
    {animal.eats}.
{B} is (angry|happy) (because|since) {A} (took|found|painted) {B.his} {good.one}. I (do not know|wonder) who
    is right.
I (read|learned) that the capital of {land} is {land.capital}, and that its river is called the {land.river}.
After dinner I tried to <hobby>. I am (not very good|getting better) at it.
Tomorrow is {day.next}. I (want|have) to go to <place> with {B}.
I (dreamed|thought) of a <big> {animal2.one} that (could fly|spoke to me|lived <spot>).

Now I am tired. Good night!
I think <lesson>.
I will write more on {day.next}.
That is all for today.""")

FACTS = genre(
    """
Here are some (facts|things) (about our world|that every child should know).
What do we know( about the world|)? Here is a (short|small) list.
{A} (wrote|read) this in (an old|a) book.
Do you know (these|the following) facts?

{A} lives in {A.town}(, and {B} lives in {B.town}|). {A.town} is in {A.town.land}.
{B} is a {B.job.one}. A {B.job.one} works (with a {B.job.tool}|in a {B.job.place}) and makes {B.job.makes}.
{C} has a {C.pet.one}, and {C.his} favourite colour is {C.colour}.
The capital of {land} is {land.capital}. The river there is called the {land.river}.
The flag of {land2} is {land2.flag}. Its capital is {land2.capital}.
A {animal.one} says {animal.says}. It lives in a {animal.home} and eats {animal.eats}.
{animal2} are (mostly|often) {animal2.colour}, and they eat {animal2.eats}.
Where do {animal3} live? A {animal3.one} (lives|sleeps) in a {animal3.home}.
The opposite of {opposite} is {opposite.of}, and the opposite of {opposite2} is {opposite2.of}.
What colour is {coloured}? {coloured} is {coloured.hue}. And {coloured2} is {coloured2.hue}.
The day after {day} is {day.next}, and the day before {day} is {day.before}.
A week has seven days. (A year|Every year) has four seasons: spring, summer, autumn and winter.
A {job.one} uses a {job.tool}. You (find|meet) (most|many) {job} in a {job.place}.
{town} has {town.sight}. It is known for {town.known}.

Now you know (a little|) more.
All of this is true.
(Ask|Tell) your friends!
Learn something new every day.""",
    shuffled=True,
)

TALK = genre("""
{A} and {B} (sat|stood|met) <spot>.
"(Hello|Good morning|Good evening), {A}," said {B}. "(How are you|Where are you going)?"
{A} had a question, so {A.he} <went> to {B}, the {B.job.one}.

"Have you seen my {thing.one}?" asked {A}. "It is {colour} and (quite|very) <big>."
"No," <said> {B}, "but I saw a {animal.one} <spot>. Perhaps it took it."
"What does a {animal.one} eat?" {A} asked. "{animal.eats}," <said> {B}. "Everybody knows that."
"Why are you so <mood> today?" {B} wanted to know. "Because I (must work|won a game|lost a game|am going to
    {town})," <said> {A}.
"I would (like|love) to <hobby>," {A} <said>. "(Then do it|Let us begin|Not today|You always say that)!"
"What is the opposite of {opposite}?" asked {B}. {A} thought for a moment. "{opposite.of}," {A.he} said.
"Is {town} in {town.land}?" "Yes, it is, and it has {town.sight}."
<weather>, so they (moved|went) inside and (sat|waited) by the (fire|window|stove).
"How much is this {good.one}?" {B} asked. "Not more than <number> coins," said {A}.
"Please (pass|bring|give|show) me the {job.tool}," said {B}. "A {job.one} needs it."
{A} (shook|nodded) {A.his} head <manner>. "(Maybe|Never mind|That is true|I am not sure)," {A.he} <said>.

"Goodbye, {A}," said {B}. "See you on {day}!"
"Thank you," said {A}. "<lesson>."
They (laughed|waved) and went home.""")

_PRODUCTS = """
bread; flour, water, salt and yeast; mix the flour with warm water in a large bowl; press and fold the dough
    with both hands; let it rest under a cloth for <number> minutes; shape it into a round loaf; bake it in a
    hot oven until it is brown
a candle; wax and a thin string; melt the wax in a pot over a small fire; tie the string to a stick; dip the
    string in the wax <number> times; hang it up until the wax is hard; cut the end with a knife
a kite; paper, two sticks and string; tie the two sticks into a cross; cut the {colour} paper to the right
    shape; glue the paper to the sticks; add a long tail with ribbons; wait for the wind and run with it
soup; {food}, {food2}, water and salt; wash the vegetables well; cut everything into small pieces; put the
    pieces into a pot of water; cook it for <number> minutes; add a little salt and taste it with a spoon
a clay bowl; clay and water; press the clay until it is soft; put it on the wheel and turn it; shape the sides
    with wet fingers; dry it in the sun for <number> hours; paint it {colour} and burn it in the oven
a basket; thin branches and straw; collect the branches near the river; put them in water for <number> hours;
    cross the strong ones to make the bottom; weave the thin ones in and out; bend a thick branch for the
    handle
a scarf; wool from a sheep; wash the wool in clean water; comb it and spin it into a thread; dye the thread
    {colour}; weave <number> rows on the loom; cut the threads and tie the ends
cheese; milk and salt; warm the milk in a big pot; stir it for <number> minutes; pour off the water; press the
    rest in a cloth; leave it on a shelf in a cool room
a chair; wood, nails and glue; saw the wood into pieces; make <number> small holes; fit the legs to the seat;
    fix them with a hammer and nails; rub the wood until it is smooth"""
_MAKING = """
(This is how you make %(product)s.|How do you make %(product)s?) You need %(needed)s.
    People in {town} (know it well|do it every week|have always done it).
To make %(product)s, you need %(needed)s(, and a little time|). This is how they do it in {town}.
{A} makes %(product)s in {A.town} and uses %(needed)s. {A.he} learned it from {B}. This is the way.

(First|To begin), %(first)s<tip>.
(Then|Next), %(second)s<tip>.
(After that|Now), %(third)s<tip>.
(Then|Next|Now), %(fourth)s<tip>.
(Finally|At last|In the end), %(fifth)s<tip>.

Now it is (ready|done|finished). You can (use it|keep it|give it to a friend|sell it).
It (takes time|is not easy), but the result is worth it.
A good worker (does|can do) this <number> times in a (week|month)."""
_STEPS = ("product", "needed", "first", "second", "third", "fourth", "fifth")
MAKING = [genre(_MAKING % dict(zip(_STEPS, line.split("; "), strict=True)), whole=True) for line in patterns(_PRODUCTS)]

GENRES = [[STORY], [STORY], [FABLE], [PLACE], [DAY], MAKING, [LETTER], [DIARY], [FACTS], [FACTS], [TALK]]

# These set the scene, in the present tense, for arithmetic: a word problem told in prose follows each sentence.
COUNTING = [
    genre("""
It is market day in {A.town}. {A} (sells|brings|carries) {food}, and {B} (buys|looks for) {good}.
At the market, {A} and {B} (ask|talk) about prices. Everybody wants to (spend|pay|earn) (only a few|some)
    coins.
The shop of {A} is full today. {A.he} counts everything twice.

A good {good.one} is not cheap, but a {food.one} costs only a few coins.
"What is the total?" asks {B}. {A} counts the coins in {A.his} (bag|purse|hand).
(People|Children) come and go, and the {animal} are loud.
The prices are (high|low|fair|the same) today.
{A} earns (a few|many) coins each day and spends (some|half) of them (on food|at once).

(At the end of the day|In the evening) {A} goes home with the money {A.he} (earns|has earned).
So the day at the market ends.
Nobody is richer, but everybody is <content>."""),
    genre("""
It is {season}, and the harvest begins on the farm of {A}.
{A} and {B} work in the garden. The {food} grow in long rows, the {food2} in short rows.
{A} keeps {animal} and {animal2}, and there is much to count.

Each row is long, and each pile of {food} is (high|small).
The {box} stand <spot>, and {B} (fills|carries|counts) them.
{A} makes piles of equal size, so that each group is the same.
Some {food} are (bad|still green|eaten by the {animal}), so they are taken out.
They lose (a few|some) {food2} on the way to the barn.
They (rest|drink|sing) (for a while|under the trees).

The work is done, and the {box} are full.
They share the rest equally and go home.
(Tomorrow|On {day}) they will pick (even|) more."""),
    genre("""
In the school of {town}, {A} and {B} learn to count.
The teacher writes numbers on the wall, and the children (solve|work out) each problem.
"Today we (add|count|divide|work with numbers)," says the teacher. {A} listens, and {B} takes a pencil.

"Think before you (answer|count)," says the teacher.
The teacher splits the class into (small|equal) groups, each with its own pile of (beads|cards).
{B} uses beads, {A} uses {A.his} fingers.
To know how many are left, we take away. To know how many there are altogether, we add.
To share equally, we divide. If each group has the same number, we multiply.
"That is (right|correct)!" says the teacher.
Is it more or fewer? {A} (is sure|thinks|asks {B}).

The bell rings, and the lesson is over.
"Well done," says the teacher. "Numbers are easy if you read with care."
For homework they get <number> more problems."""),
    genre("""
{A} and {B} (collect|trade|keep) {good} and {good2}.
Some (things|toys) belong to {A}, the others belong to {B}. Altogether they have many.
The house of {A} is full of {box}, and every {box.one} is full of {good}.

They put everything on the table and under the (table|bed) and begin to count.
{B} likes {colour} {good} best, {A} likes {colour2} ones.
{A} splits the {good2} into groups: a (row|pile) of {colour} ones, a (row|pile) of {colour2} ones.
They split what they have into equal piles.
"You have more than I have," says {B}. "Give me some of yours!"
{A} writes the number on (a card|the {box.one}).

Then they put all of it away again.
{B} learns fast, and {A} counts like a teacher.
(In the end|At last) both of them are <content>."""),
]
