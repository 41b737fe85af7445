"""Data that changed between a stage's beginning and its resumption is named."""

import os

from nanohf.data.source_state import source_changes, source_state


def test_every_change_of_a_folder_is_named(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.txt").write_text(name * 100)
    single = tmp_path / "one.jsonl"
    single.write_text("{}")
    sources = ["builtin", str(folder), str(single)]
    before = source_state(sources)
    assert source_changes(before, source_state(sources)) == []

    (folder / "a.txt").write_text("longer" * 100)
    os.utime(folder / "b.txt", ns=(1, 1))
    (folder / "c.txt").unlink()
    (folder / "e.txt").write_text("new")
    single.write_text("{ }")
    lines = source_changes(before, source_state(sources))
    assert lines[0] == f"{single}: one.jsonl has 3 bytes, had 2"
    assert lines[1] == (f"{folder}: a.txt has 600 bytes, had 100, b.txt was written again, c.txt is gone and 1 more")


def test_a_revision_of_the_hub_is_compared_where_it_is_known():
    old, new = {"u/d": {"revision": "1f"}}, {"u/d": {"revision": "2e"}}
    assert source_changes(old, new) == ["u/d: revision 1f is now 2e"]
    assert source_changes(old, {"u/d": {}}) == []
    assert source_changes(old, old) == []
