"""Is there enough text for the horizon?"""

from functools import partial

from nanohf.data.packing import PackedLoader
from nanohf.data.sources import text_stream
from nanohf.doctor.check_result import Result
from nanohf.tokenizer.train_bpe import encode_documents

MANY_EPOCHS = 4  # so often text is worth nearly as much as new text: Muennighoff et al. 2023 (arXiv:2305.16264)


def epochs(config, tokenizer) -> Result:
    """How often pretraining reads its text, by the size of the files and the tokenizer's bytes per token."""
    what = "epochs of the text"
    stream = text_stream(config.dataset, "train", config.dataset_config, config.text_column, config.split)
    whole = PackedLoader(stream, partial(encode_documents, tokenizer), 1, config.max_length).epoch_tokens()
    if not whole:
        return Result("ok", "pretrain", what, "its size is not known beforehand")
    plan = config.horizon(len(tokenizer))
    horizon = plan.steps * plan.batch_tokens
    figure = f"{horizon / whole:.1f}: {horizon:,} tokens of horizon, about {whole:,} of text"
    if horizon > MANY_EPOCHS * whole:
        why = (
            f"past {MANY_EPOCHS} epochs a model learns little more and begins to learn by heart; use more text, "
            "a smaller depth, or a lower tokens_per_parameter or max_steps"
        )
        return Result("warn", "pretrain", what, figure, why)
    return Result("ok", "pretrain", what, figure)
