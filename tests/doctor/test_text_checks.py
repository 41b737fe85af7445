"""Whether the doctor says how often a horizon reads the text."""

import json

import pytest

from nanohf.data.sources import check_text
from nanohf.doctor.text_checks import epochs
from nanohf.recipe.schemas import PretrainConfig
from nanohf.tokenizer.train_bpe import encode_documents

SHAPE = {"depth": 1, "max_length": 64, "per_device_train_batch_size": 2, "batch_tokens": 128}


@pytest.fixture
def own_text(tmp_path):
    texts = [f"Tim has {i} apples and {i + 3} pears." for i in range(2000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)))
    (tmp_path / "notes.pdf").touch()
    return tmp_path, texts


@pytest.mark.parametrize(("times", "status"), [(0.5, "ok"), (3.5, "ok"), (4.5, "warn"), (100, "warn")])
def test_a_horizon_of_many_epochs_is_warned_of(own_text, tokenizer, times, status):
    folder, texts = own_text
    tokens = 0.99 * sum(map(len, encode_documents(tokenizer, texts)))
    config = PretrainConfig(dataset=str(folder), max_steps=round(times * tokens / 128), **SHAPE)
    result = epochs(config, tokenizer)
    assert result.status == status
    assert float(result.figure.split(":")[0]) == pytest.approx(times, rel=0.05)


def test_the_toy_world_has_no_end(tokenizer):
    assert epochs(PretrainConfig(max_steps=10**6, **SHAPE), tokenizer).status == "ok"


def test_files_that_are_not_read_are_named(own_text, capsys):
    folder, _ = own_text
    check_text(str(folder))
    assert "not read: notes.pdf" in capsys.readouterr().err
    check_text(str(folder / "a.jsonl"))
    assert "not read" not in capsys.readouterr().err
