"""Checks of an sft stage that need the model and TRL's trainer: the right loss, no leak, no NaN."""

import math
from collections.abc import Iterator

from transformers import PreTrainedConfig

from nanohf.doctor.check_result import Result, percent
from nanohf.model import NanoHFConfig
from nanohf.train import sft_probes as probes

LOSS_TOLERANCE = 1e-3  # relative
LEAK_TOLERANCE = 1e-3  # of the largest logit; isolated documents move by 1e-6 in fp32


FREE_FIELDS = {"auto_map", "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path"}


def fits(stage: str, source: str | None, tokenizer) -> Iterator[Result]:
    """The input model's config: fields that mean something here, and a row of the embedding for every token."""
    if source is None:
        yield Result("ok", stage, "input model", "random weights: not trained yet")
        return
    written, _ = PreTrainedConfig.get_config_dict(source)
    known = NanoHFConfig().to_dict().keys() | FREE_FIELDS
    unknown, own = sorted(written.keys() - known), NanoHFConfig.__annotations__.keys()
    missing = sorted(name for name in own - written.keys() if name not in ("bos_token_id", "pad_token_id"))
    if written.get("model_type") != NanoHFConfig.model_type:
        why = f"its architecture is {written.get('model_type')!r}, not nanohf; convert it first: nanohf convert"
        yield Result("fail", stage, "input model", source, why)
    elif unknown and missing:
        why = (
            f"config.json has {', '.join(unknown)}, which mean nothing here, but no {', '.join(missing)}, "
            "so a default is used instead, and the trainer reads the same names: correct the names"
        )
        yield Result("fail", stage, "config fields", source, why)
    elif unknown:
        yield Result("warn", stage, "config fields", source, f"{', '.join(unknown)} mean nothing here")
    largest, vocab_size = max(tokenizer.get_vocab().values()), written.get("vocab_size", 0)
    figure = f"largest id {largest:,}, vocab_size={vocab_size:,}"
    if largest >= vocab_size:
        why = "the tokenizer has ids that the model has no embedding for; use the tokenizer it was trained with"
        yield Result("fail", stage, "ids fit the model", figure, why)
    else:
        yield Result("ok", stage, "ids fit the model", figure)


def what_is_trained(stage: str, trainer, rows: list[tuple]) -> Result:
    """Whether the trainer's labels follow the template's marks."""
    trained, total = probes.trained_shares(trainer)
    marked = percent(sum(sum(mask) for _, mask in rows), sum(len(ids) for ids, _ in rows))
    figure = f"{percent(trained, total)} of them, {marked} are the assistant's"
    if trained == 0:
        why = "nothing is trained; see the template and max_length"
        return Result("fail", stage, "tokens in the loss", figure, why)
    if trained == total:
        why = "the user's words and the calculator's output are trained too; set assistant_only_loss: true"
        return Result("warn", stage, "tokens in the loss", figure, why)
    return Result("ok", stage, "tokens in the loss", figure)


def same_loss(stage: str, trainer) -> Result:
    loss = probes.loss_of_both(trainer)
    figure = f"{loss.trainer:.4f} and {loss.model:.4f}, {loss.difference:.1e} apart"
    if not loss.difference <= LOSS_TOLERANCE:
        why = (
            "TRL computes logits itself from the last hidden state, lm_head and the config: a cap on logits must stand "
            "in the config as final_logit_softcapping, and nothing else may be done to them"
        )
        return Result("fail", stage, "trainer loss = model loss", figure, why)
    return Result("ok", stage, "trainer loss = model loss", figure)


def isolated(stage: str, args, trainer) -> Result:
    what = "no leak between packed documents"
    found = probes.leak(trainer)
    if found.documents < 2:
        figure = "no row holds two documents" if args.packing else "not packed"
        return Result("ok", stage, what, figure)
    figure = f"a changed document moves the next one's logits by {found.moved:.1e} of the largest"
    if not found.moved <= LEAK_TOLERANCE:
        if args.packing_strategy == "wrapped":
            why = "packing_strategy=wrapped lets documents see each other; set packing_strategy: bfd"
        else:
            why = "the model's attention ignores position_ids; set packing: false, or fix its mask"
        return Result("fail", stage, what, figure, why)
    return Result("ok", stage, what, figure)


def finite(stage: str, args, trainer, rows: list[tuple]) -> list[Result]:
    """Loss and gradient of the shortest and of the longest row, each alone."""
    trained = [(ids[: args.max_length], mask[: args.max_length]) for ids, mask in rows]
    trained = [row for row in trained if any(row[1][1:])]
    if not trained:
        return [Result("fail", stage, "finite loss", "no row to try", "no row has a trained token")]
    results = []
    for which, pick in (("shortest", min), ("longest", max)):
        ids, mask = pick(trained, key=lambda row: len(row[0]))
        labels = [i if m else -100 for i, m in zip(ids, mask, strict=True)]
        loss, norm = probes.loss_of_row(trainer, ids, labels)
        figure = f"{len(ids)} tokens: {loss:.4f}, gradient {norm:.2g}"
        if math.isfinite(loss) and math.isfinite(norm):
            results.append(Result("ok", stage, f"finite loss of the {which} row", figure))
        else:
            why = "NaN or infinity; look for a softmax over nothing, or weights that are broken already"
            results.append(Result("fail", stage, f"finite loss of the {which} row", figure, why))
    return results
