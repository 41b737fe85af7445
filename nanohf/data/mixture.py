"""A recipe's mixture as the trainer gets it: rows of token ids and labels, and what each source gave.

Conversations go through the tokenizer's chat template; labels are -100 where the assistant does not speak. Documents
have pretraining's form, a BOS and the text, all of it trained; one that is longer than a row continues in the next.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import Any

import numpy
from datasets import Dataset, Features, List, Value, concatenate_datasets

from nanohf.data.chat_source import ChatSource
from nanohf.data.conversations import conversations, documents
from nanohf.errors import RecipeError
from nanohf.tokenizer.train_bpe import encode_documents

ROWS = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})
COUNTED = Features({**ROWS, "tokens": Value("int64"), "trained": Value("int64"), "cut": Value("bool")})
READ_AT_ONCE = 1024  # documents


@dataclass(frozen=True)
class Given:
    """What one source gives to a mixture."""

    name: str
    rows: int  # conversations, or documents and their further pieces; repeats included
    tokens: int
    trained: int  # tokens with a label
    cut: int = 0  # rows whose end max_length cuts off; of documents, those that continue in a further row
    malformed: int = 0  # left out: no conversation could be made of them
    untrained: int = 0  # left out: no trained token within max_length
    reason: str = ""  # what is wrong with them, counted


def mixture(tokenizer, sources: list[ChatSource], args: Any) -> tuple[Dataset, list[Given]]:
    """All sources' rows {input_ids, labels}, each as often as its epochs say, shuffled by args.seed.

    args: TRL's SFTConfig, of which max_length, packing, packing_strategy and assistant_only_loss count. A share of
    documents is reckoned in tokens.

    Raises:
        RecipeError: a source gives no row, mostly malformed ones, or lacks its converter's columns.
    """
    parts = {i: source_rows(tokenizer, source, args) for i, source in enumerate(sources) if source.share is None}
    others, shares = sum(given.tokens for _, given in parts.values()), sum(source.share or 0 for source in sources)
    for i, source in enumerate(sources):
        if source.share is not None:
            parts[i] = document_rows(tokenizer, source, args.max_length, others * source.share / (1 - shares))
    tables, given = zip(*(parts[i] for i in range(len(sources))), strict=True)
    return concatenate_datasets(tables).shuffle(seed=args.seed), list(given)


def source_rows(tokenizer, source: ChatSource, args: Any, measured: bool = False) -> tuple[Dataset, Given]:
    """One source's rows and what it gives, whatever the others give. measured: of an eval_mixture."""
    if source.is_document:
        return document_rows(tokenizer, source, args.max_length)
    table, faults = conversations(source, measured)
    table, untrained = conversation_rows(tokenizer, table, args)
    return repeated(table, source, malformed=len(faults), untrained=untrained, reason=faults.summary())


def conversation_rows(tokenizer, table: Dataset, args: Any) -> tuple[Dataset, int]:
    """Each conversation's row (COUNTED), and how many have no trained token within max_length and are left out."""
    cuts = not args.packing or args.packing_strategy == "bfd"  # the other strategies split what is too long
    table = table.map(
        _conversation,
        fn_kwargs={
            "tokenizer": tokenizer,
            "limit": args.max_length if cuts else None,
            "assistant_only": args.assistant_only_loss,
        },
        remove_columns=table.column_names,
        features=COUNTED,
        num_proc=args.dataset_num_proc,
        load_from_cache_file=False,
    )
    kept = numpy.flatnonzero(numpy.asarray(table["trained"][:]))
    return table.select(kept), len(table) - len(kept)


def _conversation(row: dict, tokenizer, limit: int | None, assistant_only: bool) -> dict:
    output = tokenizer.apply_chat_template(
        row["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = output["input_ids"][:limit], output["assistant_masks"][:limit]
    labels = [i if trained or not assistant_only else -100 for i, trained in zip(ids, mask, strict=True)]
    return _counted(ids, labels, cut=len(ids) < len(output["input_ids"]))


def document_rows(tokenizer, source: ChatSource, limit: int | None, tokens: float = inf) -> tuple[Dataset, Given]:
    """The first source.rows documents, or so many that they have this many tokens, in pieces of `limit` tokens.

    What is shorter than `tokens` begins again, as in pretraining.
    """
    texts, tables, taken = _texts(source, endless=tokens < inf), [], 0
    while taken < tokens and (some := list(islice(texts, READ_AT_ONCE))):
        rows = []
        for ids in encode_documents(tokenizer, some):
            if taken < tokens:
                rows += (new := _pieces(ids, limit))
                taken += sum(row["tokens"] for row in new)
        tables.append(Dataset.from_list(rows, features=COUNTED))
    if not tables:
        raise RecipeError(f"source {source.name} has no text")
    return repeated(concatenate_datasets(tables), source)


def _texts(source: ChatSource, endless: bool) -> Iterator[str]:
    """Texts that are not empty; endless: over and over."""
    stream = documents(source) if endless else documents(source).take(source.rows)
    found = True
    while found:
        found = False
        for row in stream:
            if row["text"]:
                yield row["text"]
                found = endless


def _pieces(ids: list[int], limit: int | None) -> list[dict]:
    """A document's rows: each begins with BOS, each but the last is full."""
    room = (limit or len(ids)) - 1
    pieces = [[ids[0], *ids[at : at + room]] for at in range(1, len(ids), room)]
    return [_counted(piece, piece, cut=piece is not pieces[-1]) for piece in pieces]


def _counted(ids: list[int], labels: list[int], cut: bool) -> dict:
    trained = sum(label != -100 for label in labels[1:])  # the first is predicted from nothing
    return {"input_ids": ids, "labels": labels, "tokens": len(ids), "trained": trained, "cut": cut}


def repeated(table: Dataset, source: ChatSource, **left_out) -> tuple[Dataset, Given]:
    """The rows as often as source.epochs says.

    Raises:
        RecipeError: none is left.
    """
    order = [i % len(table) for i in range(round(len(table) * source.epochs))]
    if not order:
        raise RecipeError(f"source {source.name} gives no row")
    table = table.select(order)
    tokens, trained, cut = (int(numpy.sum(table[name][:])) for name in ("tokens", "trained", "cut"))
    return table.select_columns(list(ROWS)), Given(source.name, len(table), tokens, trained, cut, **left_out)
