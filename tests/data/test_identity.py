"""Identity files: their conversations, and what is said of those that cannot work."""

from collections import Counter
from pathlib import Path

import pytest

from nanohf.data import identity
from nanohf.data.chat_source import ChatSource
from nanohf.data.conversations import conversations

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("offline")

WHO = """
facts: {name: Pip, age: 3}
exchanges:
  - questions: ["Who are you?", "What is your name?"]
    answers: ["I am {name}.", "{name}, of course."]
  - questions: How old are you?
    answers: ["I am {age} years old."]
"""


def test_identity(tmp_path):
    (tmp_path / "who.yaml").write_text(WHO)
    table, _ = conversations(ChatSource(str(tmp_path / "who.yaml"), "identity"))
    pairs = Counter((m[0]["content"][0]["text"], m[1]["content"][0]["text"]) for m in table["messages"])
    assert pairs == {
        ("Who are you?", "I am Pip."): 1,
        ("Who are you?", "Pip, of course."): 1,
        ("What is your name?", "I am Pip."): 1,
        ("What is your name?", "Pip, of course."): 1,
        ("How old are you?", "I am 3 years old."): 1,
    }


def test_more_identity_conversations_than_exchanges(tmp_path):
    (tmp_path / "who.yaml").write_text(WHO)
    path = str(tmp_path / "who.yaml")
    rows = list(identity.rows(path, 60))
    assert len(rows) == 60
    assert rows[:5] == list(identity.rows(path))
    assert rows[:30] == list(identity.rows(path, 30))
    assert {len(row["messages"]) for row in rows[5:]} == {2, 4}
    asked = [[m["content"] == "How old are you?" for m in row["messages"][::2]] for row in rows]
    assert all(len(set(of_age)) == len(of_age) for of_age in asked)  # no entry twice in one conversation


def test_the_shipped_identity_is_sound():
    exchanges = identity.load(str(ROOT / "recipes/identity.yaml"))
    assert len(exchanges) > 10
    rows = list(identity.rows(str(ROOT / "recipes/identity.yaml"), 1000))
    assert any("I am nanohf" in message["content"] for row in rows for message in row["messages"])
    assert not any("{" in message["content"] for row in rows for message in row["messages"])
    questions = [question for asked, _ in exchanges for question in asked]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("exchanges: [a", "is not valid YAML"),
        ("- a", "must have `exchanges`"),
        ("", "must have `exchanges`"),
        ("exchanges: []", "must have `exchanges`"),
        ("exchange: [{questions: a, answers: b}]", "must have `exchanges`"),
        ("exchanges: {questions: a, answers: b}", "`exchanges` is a list"),
        ("exchanges: [{question: a, answers: b}]", "entry 1 must have `questions` and `answers`"),
        ("exchanges: [{questions: a, answers: b}, {questions: c, answers: []}]", "entry 2, answers: None is not text"),
        ("exchanges: [{questions: a, answers: [No]}]", "entry 1, answers: False is not text"),
        (
            "facts: {age: 1}\nexchanges: [{questions: a, answers: 'I am {name}'}]",
            "names name; the file's facts are: age",
        ),
    ],
)
def test_a_faulty_identity_file(tmp_path, content, says):
    (tmp_path / "who.yml").write_text(content)
    with pytest.raises(ValueError, match=r"who\.yml") as error:
        ChatSource(str(tmp_path / "who.yml"), "identity")
    assert says in str(error.value)


def test_identity_and_its_file_go_together(tmp_path):
    with pytest.raises(ValueError, match=r"identity file .*nowhere.yaml cannot be read: No such file"):
        ChatSource(str(tmp_path / "nowhere.yaml"), "identity")
    with pytest.raises(ValueError, match="only converter=identity reads"):
        ChatSource(str(ROOT / "recipes/identity.yaml"), "messages")
    with pytest.raises(ValueError, match="for training only"):
        ChatSource(str(ROOT / "recipes/identity.yaml"), "identity", split="test")
