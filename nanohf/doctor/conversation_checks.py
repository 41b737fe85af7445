"""Conversations as the trainer will see them: template, mask, end of turn, lengths, and which tokenizer it is."""

import hashlib
from dataclasses import replace
from itertools import groupby

from datasets import Dataset, concatenate_datasets

from nanohf.data.chat_source import ChatSource
from nanohf.data.conversations import conversations
from nanohf.doctor.check_result import Result, percent

ROWS = 100  # of each source: enough for the shares, and quick
SHOWN = 1000  # characters of the conversation that is printed


def sample(sources: list[ChatSource], seed: int) -> Dataset:
    """The first conversations of each source, each seen once."""
    few = [replace(s, rows=min(s.rows or ROWS, ROWS)) for s in sources if not s.is_document]
    return concatenate_datasets([conversations(source)[0] for source in few]).shuffle(seed=seed)


def rendered(tokenizer, conversations: Dataset) -> list[tuple[list[int], list[int]]]:
    """Each conversation as (ids, mask), mask 1 where the template marks the assistant's own tokens."""
    rows = []
    for messages in conversations["messages"]:
        output = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        rows.append((output["input_ids"], output["assistant_masks"]))
    return rows


def shown(tokenizer, ids: list[int], mask: list[int]) -> str:
    """The conversation as text with what is trained in [[...]]."""
    parts = []
    for trained, run in groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1]):
        text = tokenizer.decode([i for i, _ in run])
        parts.append(f"[[{text}]]" if trained else text)
    text = "".join(parts)
    return text if len(text) <= SHOWN else text[:SHOWN] + " ..."


def marks(stage: str, rows: list[tuple]) -> Result:
    """The template says which tokens are the assistant's."""
    total, trained = sum(len(ids) for ids, _ in rows), sum(sum(mask) for _, mask in rows)
    figure = f"{percent(trained, total)} of {total:,} tokens in {len(rows)} conversations trained"
    if not trained:
        why = (
            "the chat template marks nothing to train: put {% generation %} ... {% endgeneration %} around what the "
            "assistant says, up to its end token"
        )
        return Result("fail", stage, "template marks", figure, why)
    return Result("ok", stage, "template marks", figure)


def round_trip(stage: str, tokenizer, conversations: Dataset, rows: list[tuple]) -> Result:
    """Ids decode to the very text the template rendered."""
    texts = [tokenizer.apply_chat_template(m, tokenize=False) for m in conversations["messages"]]
    changed = sum(tokenizer.decode(ids) != text for text, (ids, _) in zip(texts, rows, strict=True))
    figure = f"{len(rows) - changed} of {len(rows)} conversations come back unchanged"
    if changed:
        why = "the tokenizer does not give back what it was given; is it byte-level, with clean-up off?"
        return Result("fail", stage, "template round trip", figure, why)
    return Result("ok", stage, "template round trip", figure)


def end_of_turn(stage: str, tokenizer, rows: list[tuple]) -> Result:
    """Every end-of-turn token is trained: else the model never learns to stop."""
    masks = [trained for ids, mask in rows for i, trained in zip(ids, mask, strict=True) if i == tokenizer.eos_token_id]
    what, figure = f"end of turn {tokenizer.eos_token}", f"trained in {sum(masks)} of {len(masks)} places"
    if not masks:
        return Result("fail", stage, what, "never rendered", "the chat template must end the assistant's turn with it")
    if sum(masks) < len(masks):
        why = "it lies outside the generation marks, so the model would never stop; move {% endgeneration %} behind it"
        return Result("fail", stage, what, figure, why)
    return Result("ok", stage, what, figure)


def one_bos(stage: str, tokenizer, rows: list[tuple]) -> Result:
    bos = tokenizer.bos_token_id
    wrong = sum(ids.count(bos) != 1 or ids[0] != bos for ids, _ in rows)
    if wrong:
        why = "the template writes bos_token once, at the beginning, and the tokenizer must not add another"
        return Result("fail", stage, "one BOS", f"{wrong} of {len(rows)} conversations have none or more", why)
    return Result("ok", stage, "one BOS", f"first of all {len(rows)} conversations")


def lengths(stage: str, max_length: int | None, rows: list[tuple]) -> list[Result]:
    """What max_length cuts off, and which rows have nothing left to train on."""
    sizes = sorted(len(ids) for ids, _ in rows)
    limit = max_length or sizes[-1]
    longer, empty = sum(size > limit for size in sizes), sum(1 not in mask[:limit] for _, mask in rows)
    spread = f"{sizes[0]} to {sizes[-1]} tokens, median {sizes[len(sizes) // 2]}"
    return [
        _share(
            stage, "rows longer than max_length", longer, len(rows), f"; max_length={limit}, rows of {spread}",
            "every row is cut: raise max_length, or choose shorter conversations",
            "their ends, answers as a rule, are cut off; raise max_length",
            warn_above=0.05,
        ),
        _share(
            stage, "rows without a trained token", empty, len(rows), f" after cutting at {limit}",
            "nothing is left to train on: raise max_length, and see that the conversations have answers",
            "they cost time and teach nothing; raise max_length, or leave them out",
        ),
    ]  # fmt: skip


def _share(stage, what, count, total, more, all_why, some_why, warn_above=0.0) -> Result:
    figure = f"{percent(count, total)}{more}"
    if count == total:
        return Result("fail", stage, what, figure, all_why)
    if count > warn_above * total:
        return Result("warn", stage, what, figure, some_why)
    return Result("ok", stage, what, figure)


def same_tokenizer(stage: str, own, runs_own) -> Result:
    """The input model's tokenizer is the run's: same tokens, same special ids. `runs_own` None: not finished yet."""
    what = "tokenizer"
    if runs_own is None or fingerprint(own) == fingerprint(runs_own):
        return Result("ok", stage, what, f"{len(own):,} tokens, {fingerprint(own)}")
    sizes = f"the model's has {len(own):,} tokens, {fingerprint(own)}; the run's {len(runs_own):,}, "
    figure = sizes + fingerprint(runs_own)
    special = own.special_tokens_map != runs_own.special_tokens_map or own.all_special_ids != runs_own.all_special_ids
    why = "its special tokens differ too; " if special else ""
    why += "the model was trained with a tokenizer from another run: do the stages after the tokenizer again "
    return Result("fail", stage, what, figure, why + "(--from pretrain), or give this recipe a --name of its own")


def fingerprint(tokenizer) -> str:
    """Eight hex digits of all tokens with their ids."""
    vocabulary = sorted((i, token) for token, i in tokenizer.get_vocab().items())
    return hashlib.sha256(repr(vocabulary).encode()).hexdigest()[:8]
