"""A folder to run tiny stages in."""

import json

import pytest


@pytest.fixture
def folder(tmp_path, tokenizer, model, offline):
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path / "model")
    (tmp_path / "talks").mkdir()
    said = [("user", "How many plums are {} and 3?"), ("assistant", "There are {} plums.")]
    talks = [
        {"messages": [{"role": role, "content": text.format(i)} for role, text in said]} for i in range(20)
    ]  # fmt: skip
    for split in ("train", "test"):
        (tmp_path / f"talks/{split}.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    return tmp_path
