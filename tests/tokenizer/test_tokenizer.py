"""The tokenizer: every byte comes back, and text that spells a special token stays text."""

import json
import random

import pytest

from nanohf.stages import tokenizer as stage
from nanohf.tokenizer.train_bpe import SPECIAL_TOKENS, capped, encode_documents, measure, token_bytes, train_tokenizer

BOS, END = SPECIAL_TOKENS[0], SPECIAL_TOKENS[4]
NASTY = (
    "",
    " ",
    "\t\tif x:\r\n\t\t\treturn\r\n",
    "\x00\x01\x02\x1b[31m\x7f\x85\xa0",
    "naïve Ærøskøbing ß ſ ﬁ e\u0301 é",
    "漢字かな交じり文と한국어",
    "👩‍👩‍👧‍👦🏳️‍🌈🙂",
    "\u200b\u200f\u202e\ufeff\ufffd\U0010ffff",
    "12345678901234567890 ٣٤٥ ¼Ⅷ",
    "  leading,   inner  and trailing   \n\n\n ",
    "can't I'LL 'tis ''' \"quoted\"",
    "a" * 1000,
)


# ---------------------------------------------------------------- vocabulary


def test_special_tokens_are_the_first_nine_ids(tok):
    assert tok.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(9))
    assert sorted(tok.all_special_ids) == list(range(9))
    assert len(tok) == tok.vocab_size == 512
    assert (tok.bos_token, tok.eos_token, tok.pad_token) == (BOS, END, END)


def test_smallest_vocabulary_is_bytes_and_special_tokens(corpus):
    tok = train_tokenizer(corpus, 265)
    assert len(tok) == 265
    assert all(tok.decode(ids[1:]) == t for ids, t in zip(encode_documents(tok, list(NASTY)), NASTY, strict=True))


def test_vocabulary_too_small(corpus):
    with pytest.raises(ValueError, match=r"vocab_size=264 is smaller than 256 bytes \+ 9 special tokens = 265"):
        train_tokenizer(corpus, 264)


def test_vocabulary_too_large_for_the_text():
    texts = ["abababab abab " * 9]
    with pytest.raises(ValueError, match=r"gives only \d+ tokens, vocab_size=400 .* vocab_size=\d+") as error:
        train_tokenizer(texts, 400)
    suggested = int(str(error.value).rsplit("=", 1)[1].rstrip("."))
    assert len(train_tokenizer(texts, suggested)) == suggested


def test_training_is_deterministic(tok, corpus):
    again = train_tokenizer(corpus, 512)
    assert again.get_vocab() == tok.get_vocab()


# ---------------------------------------------------------------- text


@pytest.mark.parametrize("nasty", NASTY)
def test_every_text_comes_back_unchanged(tok, nasty):
    (ids,) = encode_documents(tok, [nasty])
    assert ids[0] == 0
    assert tok.decode(ids[1:]) == nasty
    assert tok.decode(tok(nasty, add_special_tokens=False).input_ids) == nasty


def test_random_text_comes_back_and_its_bytes_add_up(tok):
    rng, sizes = random.Random(1), token_bytes(tok)
    assert len(sizes) == len(tok)
    assert sizes[:9] == [0] * 9
    blocks = (range(128), range(0x300), range(0xE000, 0x11000), range(0x1F300, 0x1F700))
    for _ in range(200):
        sample = "".join(chr(rng.choice(rng.choice(blocks))) for _ in range(50))
        (ids,) = encode_documents(tok, [sample])
        assert tok.decode(ids[1:]) == sample
        assert sum(sizes[i] for i in ids) == len(sample.encode())


def test_digits_stand_in_groups_of_one_or_two(tok, corpus):
    trained_on_numbers = train_tokenizer(["1234567890" * 50 + " 2024 2025 1000 ", *corpus], 400)
    for tokenizer in (tok, trained_on_numbers):
        tokens = [tokenizer.decode([i]) for i in range(9, len(tokenizer))]
        assert max((len(t) for t in tokens if t.strip().isdigit()), default=0) <= 2
        assert not any(t[0] == " " and t[1:].isdigit() for t in tokens if len(t) > 1)
    assert trained_on_numbers.tokenize("12345") == ["12", "34", "5"]


def test_bos_is_added_once(tok):
    ids = tok("hi").input_ids
    assert ids[0] == tok.bos_token_id
    assert ids.count(tok.bos_token_id) == 1
    assert tok("hi", add_special_tokens=False).input_ids == ids[1:]
    assert tok("hi", "ho").input_ids.count(tok.bos_token_id) == 2


def test_batches_are_padded_on_the_left(tok):
    batch = tok(["hi", "hi there you"], padding=True)
    short = tok("hi").input_ids
    padding = len(batch.input_ids[1]) - len(short)
    assert batch.input_ids[0] == [tok.pad_token_id] * padding + short
    assert batch.attention_mask[0] == [0] * padding + [1] * len(short)


def test_documents_spelling_special_tokens_stay_text(tok):
    texts = [f"a{name}b {name}{name} <{name}>" for name in SPECIAL_TOKENS]
    for ids, t in zip(encode_documents(tok, texts), texts, strict=True):
        assert [i for i in ids if i < 9] == [0]
        assert tok.decode(ids[1:]) == t
    assert tok("<|user_end|>", add_special_tokens=False).input_ids == [2], "the setting must not outlive the call"


def test_documents_do_not_inherit_padding_or_truncation(tok):
    texts = ["one two three four five six", "a"]
    before = encode_documents(tok, texts)
    tok(texts, padding=True, truncation=True, max_length=3)
    assert encode_documents(tok, texts) == before
    assert len(tok(texts, padding=True, truncation=True, max_length=3).input_ids[1]) == 3


def test_capped_counts_characters_of_cut_documents():
    assert list(capped(["abcdef", "gh", "ijk", "l"], max_chars=8, doc_cap=4)) == ["abcd", "gh", "ij"]
    assert list(capped(["ab", "c"], max_chars=100)) == ["ab", "c"]
    assert list(capped(["a" * 20_000], max_chars=10**6)) == ["a" * 10_000]


def test_the_stage_is_one_processs_work_and_reads_past_empty_texts(corpus, tmp_path, monkeypatch):
    (tmp_path / "text").mkdir()
    for split, texts in (("train", [*corpus, None]), ("validation", [None, "", "It's 12."])):
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (tmp_path / f"text/{split}.jsonl").write_text("".join(lines))
    (tmp_path / "t.yaml").write_text(f"dataset: {tmp_path}/text\nvocab_size: 320\n")
    argv = ["--config", str(tmp_path / "t.yaml"), "--run_dir", str(tmp_path / "run")]
    monkeypatch.setenv("RANK", "1")
    stage.main(argv)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("RANK", "0")
    stage.main(argv)
    assert json.loads((tmp_path / "run/tokenizer/stage.json").read_text())["round_trip"] == 1


def test_measure(tok):
    texts = ["the é", "12345"]
    tokens = sum(len(tok(t).input_ids) - 1 for t in texts)
    assert measure(tok, texts) == {
        "characters_per_token": 10 / tokens,
        "bytes_per_token": 11 / tokens,
        "round_trip": 1.0,
    }
