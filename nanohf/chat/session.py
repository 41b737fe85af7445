"""A conversation with a model: what has been said, as token ids, and the next answer."""

from collections.abc import Callable

from nanohf import console
from nanohf.data.word_problems import prompt_ids
from nanohf.errors import RecipeError
from nanohf.generation.engine import Completion, Engine


class Session:
    """One conversation. It keeps to the positions that the model was trained on: the oldest turns are forgotten.

    Args:
        max_new_tokens: of an answer. At most half of the positions are kept free for it.
        temperature: 0 is greedy.
        seed: of the first answer; each later one has the next.
    """

    def __init__(self, engine: Engine, max_new_tokens: int = 256, temperature: float = 0.0, seed: int = 0):
        self.engine, self.max_new_tokens, self.temperature, self.seed = engine, max_new_tokens, temperature, seed
        self.positions = engine.model.config.max_position_embeddings
        self.room = self.positions - min(max_new_tokens, self.positions // 2)  # of the prompt
        self.turns: list[list[int]] = []  # each a question and its answer, without BOS

    def answer(self, text: str, on_token: Callable[[int, int, bool], None] | None = None) -> Completion:
        """The model's answer to `text` after all that was said before. on_token: see `Engine.generate`.

        Raises:
            RecipeError: the text alone is too long for the model. Nothing is added to the conversation.
        """
        bos, *question = prompt_ids(self.engine.tokenizer, [{"role": "user", "content": text}])
        if 1 + len(question) > self.room:
            raise RecipeError(
                f"{1 + len(question)} tokens are too long a question for this model, which was trained on rows of "
                f"{self.positions}. Use at most {self.room} tokens."
            )
        self._forget(self.room - 1 - len(question))
        prompt = [bos, *(i for turn in self.turns for i in turn), *question]
        (completion,) = self.engine.generate(
            [prompt], 1, self.max_new_tokens, self.temperature, seed=self.seed, on_token=on_token
        )[0]
        self.seed += 1
        self.turns.append(question + ended(completion.ids, self.engine.tokenizer))
        return completion

    def _forget(self, room: int) -> None:
        """Drops the oldest turns until the rest fit into `room` tokens."""
        before = len(self.turns)
        while sum(map(len, self.turns)) > room:
            self.turns.pop(0)
        if gone := before - len(self.turns):
            console.progress(f"(the model reads {self.positions} tokens; turns forgotten, the oldest first: {gone})")


def ended(answer: list[int], tokenizer) -> list[int]:
    """The answer as the model was trained to see one: with its end token, also where it was cut off."""
    stops = (tokenizer.eos_token_id, tokenizer.bos_token_id)
    said = answer[:-1] if answer and answer[-1] in stops else answer
    return [*said, tokenizer.eos_token_id]
