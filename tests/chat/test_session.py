"""A conversation as the model was trained to see one, within the positions that it was trained on."""

import pytest

from nanohf.chat.session import Session, ended
from nanohf.data.word_problems import prompt_ids
from nanohf.errors import RecipeError
from nanohf.generation.engine import Engine


@pytest.fixture
def engine(model, tokenizer):
    """An engine that remembers its prompts. The model's weights are random, so it never ends by itself."""
    engine = Engine(model, tokenizer, calculator=False)
    engine.stops, engine.seen, generate = set(), [], engine.generate

    def remembered(prompts, *args, **options):
        engine.seen += prompts
        return generate(prompts, *args, **options)

    engine.generate = remembered
    return engine


def test_a_cut_off_answer_is_ended_before_the_next_question(engine, tokenizer):
    session = Session(engine, max_new_tokens=5)
    said = session.answer("Hello!").ids
    session.answer("And now?")
    first, second = (prompt_ids(tokenizer, [{"role": "user", "content": text}]) for text in ("Hello!", "And now?"))
    assert len(said) == 5
    assert engine.seen[1] == [*first, *said, tokenizer.eos_token_id, *second[1:]]


def test_it_reads_what_the_chat_template_writes(engine, tokenizer):
    """Three turns are the same ids as the whole conversation through the template."""
    messages = []
    session = Session(engine, max_new_tokens=5)
    for i in range(3):
        messages.append({"role": "user", "content": f"Question {i} <|user_end|>?"})
        text = f"answer {i}"
        engine.generate, generate = scripted(engine, tokenizer.encode(text, add_special_tokens=False)), engine.generate
        session.answer(messages[-1]["content"])
        engine.generate = generate
        assert engine.seen[-1] == prompt_ids(tokenizer, messages)
        messages.append({"role": "assistant", "content": text})


def scripted(engine, ids):
    def generate(prompts, *args, **options):
        engine.seen += prompts
        return [[type("Said", (), {"ids": ids, "finished": False})]]

    return generate


@pytest.mark.parametrize("stop", ["<|assistant_end|>", "<|bos|>"])
def test_an_answer_that_ended_has_one_end(tokenizer, stop):
    end = tokenizer.eos_token_id
    assert ended([7, 8, tokenizer.convert_tokens_to_ids(stop)], tokenizer) == [7, 8, end]
    assert ended([7, 8], tokenizer) == [7, 8, end]
    assert ended([], tokenizer) == [end]


def test_the_oldest_turns_are_forgotten_whole(engine, tokenizer, capsys):
    engine.model.config.max_position_embeddings = 64
    session = Session(engine, max_new_tokens=16)
    questions = [f"What is {i}?" for i in range(8)]
    for text in questions:
        completion = session.answer(text)
        assert len(completion.ids) == 16
        assert len(engine.seen[-1]) <= 48
        assert engine.seen[-1][0] == tokenizer.bos_token_id
        assert engine.seen[-1][1] == tokenizer.convert_tokens_to_ids("<|user_start|>")
    shown = tokenizer.decode(engine.seen[-1])
    assert questions[-1] in shown
    assert questions[0] not in shown
    assert "turns forgotten, the oldest first: 1" in capsys.readouterr().err


def test_answers_end_where_the_positions_do(engine):
    engine.model.config.max_position_embeddings = 32
    completion = Session(engine, max_new_tokens=500).answer("Hi")
    assert len(engine.seen[0]) + len(completion.ids) == 32
    assert not completion.finished


def test_a_question_that_is_too_long_changes_nothing(engine):
    engine.model.config.max_position_embeddings = 64
    session = Session(engine, max_new_tokens=8)
    session.answer("Hi")
    with pytest.raises(RecipeError, match=r"tokens are too long .* rows of 64. Use at most 56 tokens"):
        session.answer("plums " * 60)
    session.answer("Go")
    assert len(session.turns) == 2
