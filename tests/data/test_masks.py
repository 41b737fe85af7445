"""What is trained: conversations of every converter, and by hand every piece of their tokens, trained or not.

A piece is tokenised on its own, so the expected ids and mask owe nothing to the chat template: rows go through a file,
their converter, then through the template, and must come out as exactly these tokens with this mask.
"""

import json
import random

import pytest

from nanohf.data import spelling
from nanohf.data.chat_source import ChatSource
from nanohf.data.conversations import conversations

pytestmark = pytest.mark.usefixtures("offline")
YES, NO = True, False
STRAWBERRY = 'The word "strawberry" is spelled s-t-r-a-w-b-e-r-r-y.'


def messages(*said: tuple[str, str | list[tuple[str, str]]]) -> dict:
    contents = [
        (role, c if isinstance(c, str) else [{"type": kind, "text": text} for kind, text in c]) for role, c in said
    ]
    return {"messages": [{"role": role, "content": content} for role, content in contents]}


def counted(seed: int) -> dict:
    question, answer = spelling.letter_counting(random.Random(seed), "strawberry")
    return messages(("user", [("text", question)]), ("assistant", [(p["type"], p["text"]) for p in answer]))


# name: converter, row, (piece, trained?), ...
CASES = {
    "one exchange": (
        "messages",
        messages(("user", "Hello!"), ("assistant", "Hi. How can I help?")),
        ("<|bos|><|user_start|>Hello!<|user_end|><|assistant_start|>", NO),
        ("Hi. How can I help?<|assistant_end|>", YES),
    ),
    "two exchanges": (
        "messages",
        messages(
            ("user", "Name a river."), ("assistant", "The Ash."), ("user", "Another?"), ("assistant", "The Wren.")
        ),
        ("<|bos|><|user_start|>Name a river.<|user_end|><|assistant_start|>", NO),
        ("The Ash.<|assistant_end|>", YES),
        ("<|user_start|>Another?<|user_end|><|assistant_start|>", NO),
        ("The Wren.<|assistant_end|>", YES),
    ),
    "three exchanges, one of them short": (
        "messages",
        messages(
            ("user", "1"), ("assistant", "a"), ("user", "2"), ("assistant", "b"), ("user", "3"), ("assistant", "c")
        ),
        ("<|bos|><|user_start|>1<|user_end|><|assistant_start|>", NO),
        ("a<|assistant_end|>", YES),
        ("<|user_start|>2<|user_end|><|assistant_start|>", NO),
        ("b<|assistant_end|>", YES),
        ("<|user_start|>3<|user_end|><|assistant_start|>", NO),
        ("c<|assistant_end|>", YES),
    ),
    "a system message": (
        "messages",
        messages(("system", "Answer in one word."), ("user", "What do cows say?"), ("assistant", "Moo.")),
        ("<|bos|><|user_start|>Answer in one word.\n\nWhat do cows say?<|user_end|><|assistant_start|>", NO),
        ("Moo.<|assistant_end|>", YES),
    ),
    "a system message and two exchanges": (
        "messages",
        messages(("system", "Be kind."), ("user", "Bye"), ("assistant", "Bye!"), ("user", "Oh"), ("assistant", "Yes?")),
        ("<|bos|><|user_start|>Be kind.\n\nBye<|user_end|><|assistant_start|>", NO),
        ("Bye!<|assistant_end|>", YES),
        ("<|user_start|>Oh<|user_end|><|assistant_start|>", NO),
        ("Yes?<|assistant_end|>", YES),
    ),
    "an empty system message": (
        "messages",
        messages(("system", ""), ("user", "Bye"), ("assistant", "Bye!")),
        ("<|bos|><|user_start|>Bye<|user_end|><|assistant_start|>", NO),
        ("Bye!<|assistant_end|>", YES),
    ),
    "lines, spaces and code": (
        "messages",
        messages(("user", "  Show me a loop.\n"), ("assistant", "```python\nfor i in range(3):\n    print(i)\n```\n")),
        ("<|bos|><|user_start|>  Show me a loop.\n<|user_end|><|assistant_start|>", NO),
        ("```python\nfor i in range(3):\n    print(i)\n```\n<|assistant_end|>", YES),
    ),
    "an emoji at the end": (
        "messages",
        messages(("user", "Smile 🙂"), ("assistant", "Sure 👩‍🚀🙂")),
        ("<|bos|><|user_start|>Smile 🙂<|user_end|><|assistant_start|>", NO),
        ("Sure 👩‍🚀🙂<|assistant_end|>", YES),
    ),
    "special tokens in what is said stay text": (
        "messages",
        messages(("user", "What is <|assistant_start|>?"), ("assistant", "It comes after <|user_end|>.")),
        ("<|bos|><|user_start|>What is <| assistant_start |>?<|user_end|><|assistant_start|>", NO),
        ("It comes after <| user_end |>.<|assistant_end|>", YES),
    ),
    "parts: neighbouring texts": (
        "messages",
        messages(("user", [("text", "How "), ("text", "many?")]), ("assistant", [("text", "Just "), ("text", "one.")])),
        ("<|bos|><|user_start|>How many?<|user_end|><|assistant_start|>", NO),
        ("Just one.<|assistant_end|>", YES),
    ),
    "parts: a call in the middle, after a system message": (
        "messages",
        messages(
            ("system", [("text", "Calculate.")]),
            ("user", [("text", "7 times 8?")]),
            ("assistant", [("text", "It is "), ("python", "7*8"), ("python_output", "56"), ("text", "56.")]),
        ),
        ("<|bos|><|user_start|>Calculate.\n\n7 times 8?<|user_end|><|assistant_start|>", NO),
        ("It is <|python_start|>7*8<|python_end|>", YES),
        ("<|output_start|>56<|output_end|>", NO),
        ("56.<|assistant_end|>", YES),
    ),
    "parts: calls at both ends": (
        "messages",
        messages(
            ("user", [("text", "Twice, please")]),
            (
                "assistant",
                [
                    ("python", "1+1"),
                    ("python_output", "2"),
                    ("text", " and "),
                    ("python", "2+2"),
                    ("python_output", "4"),
                ],
            ),
        ),
        ("<|bos|><|user_start|>Twice, please<|user_end|><|assistant_start|>", NO),
        ("<|python_start|>1+1<|python_end|>", YES),
        ("<|output_start|>2<|output_end|>", NO),
        (" and <|python_start|>2+2<|python_end|>", YES),
        ("<|output_start|>4<|output_end|>", NO),
        ("<|assistant_end|>", YES),
    ),
    "parts: two calls in a row, the first without output": (
        "messages",
        messages(
            ("user", [("text", "Go")]), ("assistant", [("python", "1/0"), ("python", "4/2"), ("python_output", "2")])
        ),
        ("<|bos|><|user_start|>Go<|user_end|><|assistant_start|>", NO),
        ("<|python_start|>1/0<|python_end|><|python_start|>4/2<|python_end|>", YES),
        ("<|output_start|>2<|output_end|>", NO),
        ("<|assistant_end|>", YES),
    ),
    "gsm8k: two calls": (
        "gsm8k",
        {
            "question": "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
            "May. How many clips did Natalia sell altogether in April and May?",
            "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
            "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72",
        },
        (
            "<|bos|><|user_start|>Natalia sold clips to 48 of her friends in April, and then she sold half as many",
            NO,
        ),
        (" clips in May. How many clips did Natalia sell altogether in April and May?<|user_end|>", NO),
        ("<|assistant_start|>", NO),
        ("Natalia sold 48/2 = <|python_start|>48/2<|python_end|>", YES),
        ("<|output_start|>24<|output_end|>", NO),
        ("24 clips in May.\nNatalia sold 48+24 = <|python_start|>48+24<|python_end|>", YES),
        ("<|output_start|>72<|output_end|>", NO),
        ("72 clips altogether in April and May.\n#### 72<|assistant_end|>", YES),
    ),
    "gsm8k: dollars and decimals": (
        "gsm8k",
        {
            "question": "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of babysitting. "
            "How much did she earn?",
            "answer": "Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\n"
            "Working 50 minutes, she earned 0.2 x 50 = $<<0.2*50=10>>10.\n#### 10",
        },
        ("<|bos|><|user_start|>Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of", NO),
        (" babysitting. How much did she earn?<|user_end|><|assistant_start|>", NO),
        ("Weng earns 12/60 = $<|python_start|>12/60<|python_end|>", YES),
        ("<|output_start|>0.2<|output_end|>", NO),
        ("0.2 per minute.\nWorking 50 minutes, she earned 0.2 x 50 = $<|python_start|>0.2*50<|python_end|>", YES),
        ("<|output_start|>10<|output_end|>", NO),
        ("10.\n#### 10<|assistant_end|>", YES),
    ),
    "gsm8k: three calls": (
        "gsm8k",
        {
            "question": "How much more money does Betty need?",
            "answer": "In the beginning, Betty has only 100 / 2 = $<<100/2=50>>50.\n"
            "Betty's grandparents gave her 15 * 2 = $<<15*2=30>>30.\n"
            "This means, Betty needs 100 - 50 - 30 - 15 = $<<100-50-30-15=5>>5 more.\n#### 5",
        },
        (
            "<|bos|><|user_start|>How much more money does Betty need?<|user_end|><|assistant_start|>",
            NO,
        ),
        ("In the beginning, Betty has only 100 / 2 = $<|python_start|>100/2<|python_end|>", YES),
        ("<|output_start|>50<|output_end|>", NO),
        ("50.\nBetty's grandparents gave her 15 * 2 = $<|python_start|>15*2<|python_end|>", YES),
        ("<|output_start|>30<|output_end|>", NO),
        ("30.\nThis means, Betty needs 100 - 50 - 30 - 15 = $<|python_start|>100-50-30-15<|python_end|>", YES),
        ("<|output_start|>5<|output_end|>", NO),
        ("5 more.\n#### 5<|assistant_end|>", YES),
    ),
    "gsm8k: an expression with a sign, a line without a call": (
        "gsm8k",
        {
            "question": "How much did Alexis pay for the shoes?",
            "answer": "She spent S + 30 + 46 = S + <<+30+46=76>>76.\nThus S + 76 = 117.\n"
            "Alexis paid S = 117 - 76 = $<<117-76=41>>41 for the shoes.\n#### 41",
        },
        ("<|bos|><|user_start|>How much did Alexis pay for the shoes?<|user_end|><|assistant_start|>", NO),
        ("She spent S + 30 + 46 = S + <|python_start|>+30+46<|python_end|>", YES),
        ("<|output_start|>76<|output_end|>", NO),
        ("76.\nThus S + 76 = 117.\nAlexis paid S = 117 - 76 = $<|python_start|>117-76<|python_end|>", YES),
        ("<|output_start|>41<|output_end|>", NO),
        ("41 for the shoes.\n#### 41<|assistant_end|>", YES),
    ),
    "gsm8k: a call at the very start": (
        "gsm8k",
        {"question": "3 boxes of 4 eggs?", "answer": "<<3*4=12>>12 eggs.\n#### 12"},
        ("<|bos|><|user_start|>3 boxes of 4 eggs?<|user_end|><|assistant_start|>", NO),
        ("<|python_start|>3*4<|python_end|>", YES),
        ("<|output_start|>12<|output_end|>", NO),
        ("12 eggs.\n#### 12<|assistant_end|>", YES),
    ),
    "gsm8k: no call": (
        "gsm8k",
        {"question": "How many legs has a cow?", "answer": "A cow has four legs.\n#### 4"},
        ("<|bos|><|user_start|>How many legs has a cow?<|user_end|><|assistant_start|>", NO),
        ("A cow has four legs.\n#### 4<|assistant_end|>", YES),
    ),
    "mmlu": (
        "mmlu",
        {"question": "Which is a mammal?", "subject": "x", "choices": ["owl", "frog", "cow", "bee"], "answer": 2},
        ("<|bos|><|user_start|>Which is a mammal?\nA. owl\nB. frog\nC. cow\nD. bee\nAnswer with the letter only.", NO),
        ("<|user_end|><|assistant_start|>", NO),
        ("C<|assistant_end|>", YES),
    ),
    "arc, labels are letters": (
        "arc",
        {"question": "What is ice?", "choices": {"text": ["water", "sand"], "label": ["A", "B"]}, "answerKey": "A"},
        ("<|bos|><|user_start|>What is ice?\nA. water\nB. sand\nAnswer with the letter only.<|user_end|>", NO),
        ("<|assistant_start|>", NO),
        ("A<|assistant_end|>", YES),
    ),
    "arc, labels are numbers": (
        "arc",
        {"question": "What is hot?", "choices": {"text": ["ice", "fire"], "label": ["1", "2"]}, "answerKey": "2"},
        ("<|bos|><|user_start|>What is hot?\nA. ice\nB. fire\nAnswer with the letter only.<|user_end|>", NO),
        ("<|assistant_start|>", NO),
        ("B<|assistant_end|>", YES),
    ),
    "instructions": (
        "instructions",
        {"prompt": "Name a colour.", "completion": " Blue.", "source": "x"},
        ("<|bos|><|user_start|>Name a colour.<|user_end|><|assistant_start|>", NO),
        ("Blue.<|assistant_end|>", YES),
    ),
    "instructions with input, as in alpaca": (
        "instructions",
        {"instruction": "Make it plural.", "input": "mouse", "output": "mice", "text": "Below is an instruction ..."},
        ("<|bos|><|user_start|>Make it plural.\n\nmouse<|user_end|><|assistant_start|>", NO),
        ("mice<|assistant_end|>", YES),
    ),
    "instructions with context, as in dolly": (
        "instructions",
        {"instruction": "Who is it?", "context": "This is Mia.", "response": "Mia.", "category": "closed_qa"},
        ("<|bos|><|user_start|>Who is it?\n\nThis is Mia.<|user_end|><|assistant_start|>", NO),
        ("Mia.<|assistant_end|>", YES),
    ),
    "spelling": (
        "messages",
        messages(
            ("user", [("text", spelling.spelling(random.Random(1), "giraffe")[0])]),
            ("assistant", [("text", spelling.spelling(random.Random(1), "giraffe")[1][0]["text"])]),
        ),
        ("<|bos|><|user_start|>Please spell 'giraffe'.<|user_end|><|assistant_start|>", NO),
        ('The word "giraffe" is spelled g-i-r-a-f-f-e.<|assistant_end|>', YES),
    ),
    "letter counting": (
        "messages",
        counted(7),
        ("<|bos|><|user_start|>Count how many \"r\" there are in the word 'strawberry'.<|user_end|>", NO),
        ("<|assistant_start|>", NO),
        (f'{STRAWBERRY}\nCounting "r": <|python_start|>"strawberry".count("r")<|python_end|>', YES),
        ("<|output_start|>3<|output_end|>", NO),
        ('\nThe letter "r" occurs 3 times in "strawberry".\n#### 3<|assistant_end|>', YES),
    ),
    "letter counting, none there": (
        "messages",
        counted(32),
        ('<|bos|><|user_start|>How many letters "g" does the word "strawberry" have?<|user_end|>', NO),
        ("<|assistant_start|>", NO),
        (f'{STRAWBERRY}\nCounting "g": <|python_start|>"strawberry".count("g")<|python_end|>', YES),
        ("<|output_start|>0<|output_end|>", NO),
        ('\nThe word "strawberry" has the letter "g" 0 times.\n#### 0<|assistant_end|>', YES),
    ),
    "identity": (
        "identity",
        {"facts": {"name": "Pip"}, "exchanges": [{"questions": ["Who are you?"], "answers": ["I am {name}."]}]},
        ("<|bos|><|user_start|>Who are you?<|user_end|><|assistant_start|>", NO),
        ("I am Pip.<|assistant_end|>", YES),
    ),
}


def pieces_to_tokens(tokenizer, pieces: list[tuple[str, bool]]) -> tuple[list[int], list[int]]:
    ids, mask = [], []
    for text, trained in pieces:
        own = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(own) == text
        ids += own
        mask += [int(trained)] * len(own)
    return ids, mask


@pytest.mark.parametrize("name", CASES)
def test_every_token_is_trained_or_not_as_written_by_hand(tokenizer, tmp_path, name):
    converter, row, *pieces = CASES[name]
    file = tmp_path / ("who.yaml" if converter == "identity" else "rows.jsonl")  # JSON is YAML too
    file.write_text(json.dumps(row), encoding="utf-8")
    table, _ = conversations(ChatSource(str(file if converter == "identity" else tmp_path), converter))
    assert len(table) == 1

    got = tokenizer.apply_chat_template(
        table[0]["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = pieces_to_tokens(tokenizer, pieces)
    assert tokenizer.convert_ids_to_tokens(got["input_ids"]) == tokenizer.convert_ids_to_tokens(ids)
    assert got["assistant_masks"] == mask


def test_there_are_enough_of_every_kind():
    converters = [converter for converter, *_ in CASES.values()]
    assert len(CASES) >= 20
    assert converters.count("gsm8k") >= 5
    assert set(converters) == {"messages", "gsm8k", "mmlu", "arc", "instructions", "identity"}
    assert all(pieces[-1][0].endswith("<|assistant_end|>") and pieces[-1][1] for _, _, *pieces in CASES.values())
    outputs = [trained for _, _, *pieces in CASES.values() for text, trained in pieces if "<|output_start|>" in text]
    assert len(outputs) > 10
    assert not any(outputs)
