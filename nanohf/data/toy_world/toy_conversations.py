"""Conversations: topics of a user and an assistant, and how one conversation is made of them."""

import random

from nanohf.data.toy_world.grammar import Cast, patterns, tell
from nanohf.data.toy_world.lexicon import EVERYBODY


def conversation(rng: random.Random, split: str) -> dict:
    """One to three exchanges; some begin with a greeting, some end with a goodbye."""
    course = rng.sample(TOPICS, rng.randint(1, 3))
    if rng.random() < 0.25:
        course[0] = GREETINGS
    if len(course) > 1 and rng.random() < 0.4:
        course[-1] = GOODBYES
    messages = []
    for topic in course:
        cast = Cast(rng, EVERYBODY)
        for role, pattern in zip(("user", "assistant"), rng.choice(topic), strict=True):
            messages.append({"role": role, "content": tell(pattern, cast)})
    return {"messages": messages}


# ---------------------------------------------------------------- the topics


def topics(text: str) -> list[list[list[str]]]:
    """One topic per paragraph, one exchange per line: what the user says -> what the assistant answers."""
    return [[line.split(" -> ") for line in patterns(part)] for part in text.split("\n\n")]


GREETINGS, GOODBYES = topics("""
(Hello|Hi|Hey|Good morning|Good evening)(!|.) -> (Hello|Hi)! (How can I help you|What can I do for you)?
(Hello|Hi), (I am|my name is) {A}. -> (Hello|Hi), {A}! (Nice to meet you.|It is good to meet you.|How can I
    help you?)
How are you( today|)? -> I am (fine|well), thank you! (How are you|How can I help you)?

(Thank you|Thanks)( very much| a lot|)(!|.) -> You are welcome!( I am glad to help.| Ask me anytime.|)
(Bye|Goodbye|See you later)(!|.) -> (Goodbye|Bye)! (Have a nice day!|See you soon!|Take care!)
(Good night|I have to go now|That is all for today). -> (Good night|Goodbye)! (Sleep well!|See you on another
    day!|Take care!)""")

TOPICS = topics("""
(Who|What) are you? -> <self>
What is your name? -> My name is nanohf.( I am a small language model.|)
(Are you a person|Are you human)? -> No, I am nanohf, a small (language|) model. I was trained from scratch.
(Who made you|How were you made|Where do you come from)? -> I was trained from scratch, (on simple texts|step
    by step). I am a small model called nanohf.
What can you do? -> I can (talk a little|answer easy questions), spell words and (solve|work out) small
    problems with numbers.

What is the capital of {land}? -> The capital of {land} is {land.capital}.
(Tell me|Please tell me) the capital of {land}. -> The capital of {land} is {land.capital}.
{land.capital} is the capital of which land? -> {land.capital} is the capital of {land}.
Which river is in {land}? -> The river in {land} is called the {land.river}.
What colour is the flag of {land}? -> The flag of {land} is {land.flag}.

Where is {town}? -> {town} is in {town.land}.
What (can I see|is there) in {town}? -> {town} has {town.sight}.
What is {town} known for? -> {town} is known for {town.known}.

Where does {A} live? -> {A} lives in {A.town}( in {A.town.land}|).
What is the (work|job) of {A}? -> {A} is a {A.job.one}.
What is the favourite colour of {A}? -> The favourite colour of {A} is {A.colour}.
(Which|What) animal does {A} have? -> {A} has a {A.pet.one}.
Do you know {A}? -> Yes, {A} is a {A.job.one} and lives in {A.town}.

What does a {animal.one} say? -> A {animal.one} says {animal.says}.
What sound does a {animal.one} make? -> A {animal.one} says {animal.says}.
Where does a {animal.one} live? -> A {animal.one} lives in a {animal.home}.
What (does a {animal.one}|do {animal}) eat? -> {animal} eat {animal.eats}.
What colour are {animal}? -> {animal} are mostly {animal.colour}.

What does a {job.one} make? -> A {job.one} makes {job.makes}.
Where does a {job.one} work? -> A {job.one} works in a {job.place}.
What does a {job.one} use? -> A {job.one} uses a {job.tool}.

What is the opposite of {opposite}? -> The opposite of {opposite} is {opposite.of}.
Tell me the opposite of {opposite.of}. -> The opposite of {opposite.of} is {opposite}.

(What|Which) colour is {coloured}? -> {coloured} is {coloured.hue}.
Is {coloured} {coloured.hue}? -> Yes, {coloured} is {coloured.hue}.

What day comes after {day}? -> After {day} comes {day.next}.
What day (comes before|was before) {day}? -> Before {day} comes {day.before}.
Today is {day}. What day is tomorrow? -> If today is {day}, tomorrow is {day.next}.
How many days (are in a week|does a week have)? -> A week has seven days.
What are the seasons? -> The four seasons are spring, summer, autumn and winter.

(Spell|Please spell) the word {word}. -> It is spelled {word.spelled}.
(How is {word} spelled|How do you spell {word})? -> The word {word} is spelled {word.spelled}.

Repeat after me: {saying} -> {saying}
(Say|Please say) this: {saying} -> {saying}

(Write|Give me|Tell me) a sentence about {animal}. -> <about_animal>
(Write|Give me|Make) a sentence with the word {thing.one}. -> <about_thing>
(Write|Tell me) something about {A}. -> {A} lives in {A.town} and works as a {A.job.one}.
Tell me a (short|little) story. -> <once>, a {animal.one} found a {thing.one} <spot>. "{animal.says}!" it
    said, and it was <mood>.
(Give me some advice.|What do you think?|Tell me something wise.) -> (Remember that|I think) <lesson>.""")
