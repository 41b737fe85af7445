"""One answer of a finished model for its card: greedy, to a fixed prompt, the calculator at work."""

from nanohf.data.word_problems import prompt_ids
from nanohf.generation.engine import Engine
from nanohf.tokenizer.render import readable

TEXT = "There is a"
QUESTION = "Tom has three bags of four apples. How many apples is that?"  # both as in model_cards/


def text_sample(model, tokenizer) -> str | None:
    """How a base model continues. None where the prompt fills the model's positions."""
    return _sample(model, tokenizer, tokenizer.encode(TEXT))


def chat_sample(model, tokenizer) -> str | None:
    """How a chat model answers."""
    return _sample(model, tokenizer, prompt_ids(tokenizer, [{"role": "user", "content": QUESTION}]))


def _sample(model, tokenizer, prompt: list[int]) -> str | None:
    if len(prompt) >= model.config.max_position_embeddings:
        return None
    (completion,) = Engine(model, tokenizer).generate([prompt], temperature=0.0, max_new_tokens=128)[0]
    return readable(tokenizer.decode(prompt + completion.ids))
