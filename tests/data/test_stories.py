"""Stories as conversations, and small talk."""

import pytest

from nanohf.data import small_talk, stories
from nanohf.data.conversations import check
from nanohf.data.row_faults import Malformed

STORY = (
    "Once upon a time there was a little fox. The fox found an old lantern. It was in the barn. The fox took the "
    "lantern home. He was proud. His mom was glad. They sat by the light of the lantern. The end."
)


def said(row: dict) -> list[str]:
    return [part["text"] for message in row["messages"] for part in message["content"]]


def variants(story: str, count: int = 200) -> list[list[str]]:
    """The conversations of stories that differ in one number."""
    return [said(stories.conversation({"text": f"{story} {i}."})) for i in range(count)]


def test_a_story_is_about_its_nouns_the_most_frequent_first():
    assert stories.subjects(STORY)[:2] == ["a fox", "a lantern"]
    assert stories.subjects("She saw an owl in the tree. The owl was old.") == ["an owl", "the tree"]


def test_a_story_is_asked_for_continued_or_finished_and_nothing_of_it_is_lost():
    asked = 0
    for i, (question, answer) in enumerate(variants(STORY)):
        whole = f"{STORY} {i}."
        if answer == whole:
            asked += "fox" in question
        else:
            start = question[question.index("Once upon") :]
            assert f"{start} {answer}" == whole
    assert 100 < asked < 180


def test_the_same_story_gives_the_same_conversation():
    assert stories.conversation({"text": STORY}) == stories.conversation({"text": f" {STORY}\n"})


def test_a_story_without_nouns_is_any_story():
    (question, answer) = said(stories.conversation({"text": "Run, run, run! He ran."}))
    assert question in stories.ANY
    assert answer == "Run, run, run! He ran."


@pytest.mark.parametrize("text", [None, 7])
def test_what_is_no_text_is_malformed(text):
    with pytest.raises(Malformed, match="the text is"):
        stories.conversation({"text": text})


def test_small_talk_is_conversations_with_capitals_and_no_pattern_left():
    made = list(small_talk.rows("small_talk", "train", 2000))
    for row in made:
        check([{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in row["messages"]])
        assert all(m["content"][0].isupper() and not set("<>{}|()") & set(m["content"]) for m in row["messages"]), row
    assert len({str(row) for row in made}) > 1000


def test_small_talk_asks_other_questions_in_test():
    asked = [
        {m["content"] for row in small_talk.rows("small_talk", split, 3000) for m in row["messages"][::2]}
        for split in ("train", "test")
    ]
    assert not asked[0] & asked[1]
    assert len(asked[1]) > 50
