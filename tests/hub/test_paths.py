"""What is published names no folder of this machine, however it is written; names of the Hub and prose stay."""

import pytest
from records import a_record

from nanohf.hub.card import hub_id, public
from nanohf.hub.paths import without_paths


@pytest.mark.parametrize(
    ("value", "published"),
    [
        ("/home/alice/chats", "./chats"),
        ("/home/alice/my chats/all of them", "./all of them"),
        ("/home/alice/chats/", "./chats"),
        ("~/chats", "./chats"),
        ("~alice/chats test", "./chats test"),
        ("../alice/chats", "./chats"),
        ("./private/chats", "./chats"),
        ("..\\alice\\chats", "./chats"),
        ("data/alice/chats", "./chats"),
        ("file:///home/alice/chats.jsonl", "./chats.jsonl"),
        ("FILE:/home/alice/chats.jsonl", "./chats.jsonl"),
        (r"C:\Users\alice\chats", "./chats"),
        ("C:/Users/alice/chats", "./chats"),
        (r"\\server\alice\chats", "./chats"),
        ("row 3 of /home/alice/chats.jsonl: no messages", "row 3 of ./chats.jsonl: no messages"),
        (r"see 'C:\Users\alice\x.txt', ../alice/y and ~/z", "see './x.txt', ./y and ./z"),
        ("json, file:///home/alice/chats", "json, ./chats"),
        ({"a": ["/home/alice/b", 1, None]}, {"a": ["./b", 1, None]}),
    ],
)
def test_only_the_last_part_is_left(value, published):
    assert without_paths(value) == published
    assert "alice" not in str(without_paths(value))


@pytest.mark.parametrize(
    "value",
    [
        "openai/gsm8k",
        "openai/gsm8k main train",
        "builtin",
        "https://host/a/b.jsonl",
        "hf://datasets/a/b",
        "12 tokens/s and/or 3 / 4 = 3/4",
        "Well... 1.5/2. Yes!",
        "a: b/c\nd",
        "bits per byte",
    ],
)
def test_what_is_no_path_stays(value):
    assert without_paths(value) == value


def test_a_folder_that_is_there_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert without_paths("alice/chats") == "alice/chats"
    (tmp_path / "alice/chats").mkdir(parents=True)
    assert without_paths("alice/chats") == "./chats"


@pytest.mark.parametrize("name", ["C:/data", r"C:\data\x", "file:/data", "https://a", "../x", "~/x", "a b/c"])
def test_none_of_them_is_a_hub_id(name):
    assert hub_id(name) is None


def test_neither_password_nor_token_is_published():
    address = "https://alice:hunter2@host/data.jsonl?X-Signature=hunter3#hunter4"
    recipe = {"dataset": address, "hub_token": "hunter5", "mixture": [{"dataset": address, "access_token": "hunter6"}]}
    recipe["model_name_or_path"] = "hf_" + "hunter7" * 5
    told = public(a_record("pretrain", recipe=recipe, skipped_files=[address]))
    assert "hunter" not in str(told)
    assert told["recipe"]["dataset"] == told["skipped_files"][0] == "https://host/data.jsonl"
