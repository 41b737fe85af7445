"""Small talk, the builtin examples `small_talk`: short everyday conversations, put together from patterns.

    from nanohf.data.small_talk import rows
    next(rows("small_talk", "train", size=1))    # {"messages": [{"role": "user", "content": "Good morning!"}, ...]}

Who the model is stays with recipes/identity.yaml. The test split has wordings of questions that training has not.
"""

import random
import zlib
from collections.abc import Iterator

from nanohf.data.toy_world.grammar import Cast, patterns, tell

KINDS = ("small_talk",)
EXCHANGES = (0.3, 0.45, 0.25)  # shares of conversations with one, two and three exchanges

MEMBERS: dict[str, list] = {
    "thing": [
        "a book",
        "a game",
        "a song",
        "a walk",
        "a drawing",
        "a cake",
        "a letter",
        "a kite",
        "a puzzle",
        "a boat",
    ],
    "animal": ["dogs", "cats", "birds", "horses", "rabbits", "ducks", "frogs", "bears", "foxes", "fish"],
    "color": ["red", "blue", "green", "yellow", "white", "purple", "orange", "pink"],
    "food": ["apples", "soup", "bread", "cookies", "pizza", "rice", "carrots", "cake", "pancakes", "berries"],
    "place": ["the park", "the beach", "the zoo", "school", "the forest", "the library", "the lake", "the market"],
    "who": ["my mom", "my dad", "my friend", "my sister", "my brother", "my teacher", "my dog", "my cat", "my grandma"],
    "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
}
RULES = dict(
    line.split(": ", 1)
    for line in patterns("""
hello: Hello!|Hi!|Hi there!|Hello there!|Good morning!|Good evening!|Hey!
help: How can I help you?|What can I do for you?|What would you like to do?|It is nice to hear from you.
glad: I am glad to hear that.|That is good to hear.|That sounds lovely.|How nice!|That makes me glad.
sorry: I am sorry to hear that.|Oh no, I am sorry.|That sounds hard.|I am sorry.
offer: Shall I tell you a story?|Would you like to hear a story?|Do you want to talk about it?|Maybe a story would
    help.|You could take a little rest.
story: I can tell you a story if you like.|Ask me for a story.|I like telling stories.
small: I am a very small model|I am only a small language model|I am a small program""")
)
OPENING = patterns("""
<hello> => <hello> <help>
<hello> How are you? => <hello> I am (fine|well|doing well), thank you. <help>
How are you (today|this morning|)? => I am (fine|well|doing well), thank you. How are you?
(Is anybody there|Are you there|Can you hear me)? => Yes, I am here. <help>
Nice to meet you(.|!) => It is nice to meet you too. <help>
<hello> I am (new here|bored|back again|home from school). => <hello> <help>""")
MIDDLE = patterns("""
I am (happy|so happy|very glad) today(.|!) => <glad> What (happened|made you happy)?
I am (sad|very sad|a bit sad)(.| today.) => <sorry> <offer>
I am (angry|mad) (at|with) {who}. => <sorry> You could tell {who.your} how you feel.
I am (tired|sleepy|so tired). => (Then you should rest.|Maybe you need a little sleep.|A short rest will do you good.)
I am (scared|afraid) of {animal}. => It is okay to be afraid. You can ask (a friend|somebody) to stay with you.
I am (sick|not feeling well). => <sorry> Please rest and drink some water. Tell somebody near you, too.
I (went|walked|drove) to {place} (yesterday|today|on {day}). => That sounds (fun|nice|lovely). What did you do there?
I am going to {place} (tomorrow|on {day}). => Have (fun|a good time|a lovely day) at {place}!
I made {thing} (today|for {who}). => <glad> You must be proud of it.
I lost {thing} (today|at {place}). => <sorry> Have you looked everywhere?
I want {thing}. => {thing.up} would be nice. <story>
Today is my birthday(.|!) => Happy birthday! I hope you have a (wonderful|great|lovely) day.
{who.up} gave me {thing}(.|!) => How kind! Did you say thank you?
I like {food}(.|!) => (I am sure|I think) many people like {food}. I cannot eat, because I am a program.
Do you (like|eat) {food}? => I cannot eat, because I am a program. But many people like {food}.
Do you like {animal}? => I like stories about {animal}. <story>
What is your favorite color? => I cannot see colors, but I like the word {color}.
My favorite color is {color}. => {color.up} is a beautiful color.
Do you know {who}? => No, I do not know {who.your}. I only know what you tell me.
What is {who} doing? => I do not know. <small>, and I cannot see {who.your}.
What (day|time) is it? => I do not know. <small>, and I have no clock.
Will it rain (tomorrow|on {day})? => I do not know. I cannot see the sky or the future.
Where am I? => I do not know where you are. I can only read what you write.
How old are you? => I am a program, so I have no age in years.
Can you (sing|dance|jump|cook)? => No, I can only read and write. <story>
Can we be friends? => Yes! I am happy to (talk with|be there for) you.
Do you want to play? => Yes! You could ask me to tell a story, to spell a word or to solve a word problem.
I am bored. => <offer>
Tell me something nice. => You are (kind|brave|good) to ask. I hope you have a good day.
Say something (funny|silly). => A {color} fish wanted to fly to {place}. That would be silly!
(Can|Could) you help me? => I will try. <small>, so please check what I say.
Why is the sky blue? => I am not sure. <small>, and I might say something wrong.
Who is the (king|queen|president)? => I do not know. <small> and know very little of the world.
You are (wrong|not right). => I am sorry. I make mistakes. Can you tell me what is right?
You are (nice|kind|funny|smart)(.|!) => Thank you! That is kind of you.
I do not (understand|get it). => I am sorry. Which part should I say in other words?
What should I do (today|now)? => You could (read a book|go for a walk|call a friend|draw a picture).
Should I go to {place}? => If you like {place}, it may be fun. Ask somebody who can go with you.
I (love|miss) {who}. => That is (a warm feeling|sweet). You could tell {who.your} so.
I had a (bad|hard) day. => <sorry> <offer>
I had a (good|great|lovely) day. => <glad> What did you like best?""")
CLOSING = patterns("""
(Thank you|Thanks|Thank you very much)(.|!) => You are welcome(.|!)
(Thanks|Thank you) for (your help|talking to me)(.|!) => You are welcome. I liked talking with you.
(Goodbye|Bye|Bye bye|See you)(.|!) => Goodbye! (Have a nice day.|See you soon.|Take care.)
(I have to go now|I must go|I am going to bed). => (Goodbye|Good night)! (Take care.|See you soon.|Sleep well.)
Good night(.|!) => Good night! Sleep well.
(Okay|Alright|Good). => Good. Is there anything else?""")


class Phrase(str):
    """A word of the text, also with a capital and as somebody else says it: my mom, your mom."""

    @property
    def up(self) -> str:
        return self[0].upper() + self[1:]

    @property
    def your(self) -> str:
        return self.replace("my ", "your ")


class Talk(Cast):
    members = {key: [Phrase(word) for word in words] for key, words in MEMBERS.items()}
    rules = RULES


def rows(kind: str, split: str, size: int, seed: int = 0) -> Iterator[dict]:
    """Conversations {messages: [{role, content}, ...]} of one to three exchanges."""
    for index in range(size):
        yield {"messages": small_talk(random.Random(f"{seed}/{split}/{kind}/{index}"), split)}


def small_talk(rng: random.Random, split: str) -> list[dict]:
    shapes = ((rng.choice((OPENING, MIDDLE, MIDDLE, CLOSING)),), (OPENING, MIDDLE), (OPENING, MIDDLE, CLOSING))
    messages: list[dict] = []
    for pool in rng.choices(shapes, EXCHANGES)[0]:
        question, answer = exchange(rng, pool, split)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def exchange(rng: random.Random, pool: list[str], split: str) -> tuple[str, str]:
    while True:
        asked, _, answered = rng.choice(pool).partition(" => ")
        cast = Talk(rng, [])
        question = tell(asked, cast)
        if (zlib.crc32(question.encode()) % 10 == 0) == (split == "test"):
            return question, tell(answered, cast)
