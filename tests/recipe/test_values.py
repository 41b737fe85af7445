"""What YAML values and the words of overrides become, by the kind of value a key takes; and what is refused."""

from types import NoneType
from typing import Any, Literal, Optional

import pytest

from nanohf.errors import RecipeError
from nanohf.recipe.loading import load_recipe
from nanohf.recipe.values import WrongValue, from_command_line, from_yaml, kinds_of, suggestion

WHOLE, NUMBER, TRUTH, TEXT, LIST = (int,), (float,), (bool,), (str,), (list,)
TEXT_OR_NONE, LIST_OR_TEXT, NUMBER_OR_TEXT = (str, NoneType), (list, str, NoneType), (float, str)


@pytest.mark.parametrize(
    ("annotation", "kinds"),
    [
        (int, (int,)),
        (int | None, (int, NoneType)),
        (Optional[float], (float, NoneType)),  # noqa: UP045 as TRL writes it
        (list[str], (list,)),
        (dict[str, Any] | str, (dict, str)),
        (Literal["a", "b"], (str, str)),
        (str | list[str] | None, (str, list, NoneType)),
    ],
)
def test_kinds(annotation, kinds):
    assert kinds_of(annotation) == kinds


@pytest.mark.parametrize(
    ("kinds", "written", "value"),
    [
        (WHOLE, 3, 3),
        (NUMBER, 3, 3),
        (NUMBER, 0.5, 0.5),
        (NUMBER, "1e-3", 0.001),  # YAML 1.1 takes it for text
        (NUMBER_OR_TEXT, "1e-3", "1e-3"),
        (TRUTH, True, True),
        (TEXT, "no", "no"),
        (TEXT, False, "no"),  # YAML takes a bare no for false
        (TEXT, True, "yes"),
        (TEXT_OR_NONE, None, None),
        (LIST, ["a"], ["a"]),
        (LIST_OR_TEXT, "a", "a"),
    ],
)
def test_a_yaml_value(kinds, written, value):
    found = from_yaml("key", written, kinds)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kinds", "written", "says"),
    [
        (WHOLE, 2.5, "key=2.5 must be a whole number"),
        (WHOLE, True, "key=True must be a whole number"),
        (WHOLE, "3", "key='3' must be a whole number"),
        (WHOLE, None, "key=None must be a whole number"),
        (NUMBER, "fast", "key='fast' must be a number"),
        (NUMBER, True, "key=True must be a number"),
        (NUMBER, float("nan"), "key=nan must be a finite number"),
        (NUMBER, "inf", "key=inf must be a finite number"),
        (TRUTH, 1, "key=1 must be true or false"),
        (TRUTH, "true", "key='true' must be true or false"),
        (TEXT, 3, "key=3 must be text"),
        (LIST, "a", "key='a' must be a list, such as [a]"),
        (LIST_OR_TEXT, 3, "key=3 must be a list or text"),
    ],
)
def test_a_yaml_value_of_another_kind(kinds, written, says):
    with pytest.raises(WrongValue) as error:
        from_yaml("key", written, kinds)
    assert str(error.value) == says


@pytest.mark.parametrize(
    ("kinds", "words", "value"),
    [
        (WHOLE, ["3"], 3),
        (WHOLE, ["-1"], -1),
        (NUMBER, ["1e-3"], 0.001),
        (NUMBER, [".5"], 0.5),
        (TRUTH, [], True),
        (TRUTH, ["true"], True),
        (TRUTH, ["no"], False),
        (TEXT, ["no"], "no"),
        (TEXT, ["2024"], "2024"),
        (TEXT, ["null"], "null"),
        (TEXT, ["a: ["], "a: ["),
        (TEXT, ["1e-3"], "1e-3"),
        (TEXT_OR_NONE, ["null"], None),
        (TEXT_OR_NONE, ["0123"], "0123"),
        (LIST, ["a"], ["a"]),
        (LIST, ["a", "b"], ["a", "b"]),
        (LIST, ["[a, b]"], ["a", "b"]),
        (LIST, ["[]"], []),
        (LIST, ["a: ["], ["a: ["]),
        (LIST_OR_TEXT, ["none"], "none"),
        (LIST_OR_TEXT, ["a", "b"], ["a", "b"]),
        (LIST_OR_TEXT, ["null"], None),
    ],
)
def test_words_of_an_override(kinds, words, value):
    found = from_command_line("key", words, kinds)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kinds", "words", "says"),
    [
        (WHOLE, ["two"], "key='two' must be a whole number"),
        (WHOLE, ["2.5"], "key=2.5 must be a whole number"),
        (WHOLE, ["1", "2"], "key='1 2' must be one value"),
        (WHOLE, [], "key='' must be one value"),
        (WHOLE, ["null"], "key=None must be a whole number"),
        (NUMBER, ["nan"], "key=nan must be a finite number"),
        (NUMBER, [".inf"], "key=inf must be a finite number"),
        (TRUTH, ["maybe"], "key='maybe' must be true or false"),
    ],
)
def test_words_that_are_refused(kinds, words, says):
    with pytest.raises(WrongValue) as error:
        from_command_line("key", words, kinds)
    assert str(error.value) == says


@pytest.mark.parametrize(("word", "ends"), [("dpeth", " Did you mean 'depth'?"), ("zzz", ""), (1, ""), (False, "")])
def test_suggestion(word, ends):
    assert suggestion(word, ["depth", "seed"]) == ends


SOURCE = "{dataset: builtin, config: problems, rows: 5, converter: gsm8k}"


def refused(tmp_path, stage: str, text: str, *argv: str) -> str:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError) as error:
        load_recipe(stage, ["--config", str(tmp_path / "recipe.yaml"), *argv])
    return str(error.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("5", "must be a mapping with a dataset"),
        ("{config: problems}", "must be a mapping with a dataset"),
        (SOURCE.replace("rows: 5", "rows: '5'"), "rows='5' must be a whole number"),
        (SOURCE.replace("rows: 5", "rows: 2.5"), "rows=2.5 must be a whole number"),
        (SOURCE.replace("rows: 5", "rwos: 5"), "unknown key 'rwos'. Did you mean 'rows'?"),
        (SOURCE.replace("rows: 5", "epochs: many"), "epochs='many' must be a number"),
        (SOURCE.replace("dataset: builtin", "dataset: 5"), "dataset=5 must be text"),
        (SOURCE.replace("converter: gsm8k", "converter: [gsm8k]"), "converter=['gsm8k'] must be text"),
    ],
)
def test_a_line_of_a_mixture_has_kinds_too(tmp_path, source, says):
    text = f"stage: sft\nmixture: [{SOURCE}, {source}]\neval_mixture: [{SOURCE}]\n"
    message = refused(tmp_path, "sft", text)
    assert says in message
    assert "mixture[1]" in message


@pytest.mark.parametrize(
    ("stage", "argv", "says"),
    [
        ("evaluate", ["--tasks", "[1]"], "tasks=[1] must be a list of words"),
        ("evaluate", ["--stages", "[[a]]"], "stages=[['a']] must be a list of words"),
        ("evaluate", ["--seed", "-1"], "seed=-1 must be at least 0"),
        ("pretrain", ["--seed", "-1"], "seed=-1 must be at least 0"),
        ("grpo", ["--seed", "-1"], "seed=-1 must be at least 0"),
        ("grpo", ["--problems_per_step", "0"], "problems_per_step=0 must be at least 1"),
        ("grpo", ["--num_generations", "0"], "num_generations=0 must be at least 2"),
        ("grpo", ["--num_iterations", "0"], "num_iterations=0 must be at least 1"),
        ("grpo", ["--temperature", "0"], "temperature=0 must be above 0"),
        ("grpo", ["--num_train_epochs", "0"], "num_train_epochs=0 must be above 0"),
        ("grpo", ["--use_peft", "--lora_target_modules", "[1]"], "lora_target_modules=[1] must be a list of words"),
    ],
)
def test_values_that_would_end_a_stage_later_with_a_traceback(tmp_path, stage, argv, says):
    assert says in refused(tmp_path, stage, "", *argv)


@pytest.mark.parametrize(
    ("generation", "save_steps", "says"),
    [
        ("null", 25, None),
        ("64", 25, None),
        ("32", 25, None),  # two generations within a step
        ("128", 25, "must be a multiple of 2, .* Try 24"),
        ("96", 25, "must be a multiple of 3, .* Try 24"),  # three steps are two generations
        ("96", 24, None),
    ],
)
def test_grpo_saves_only_where_a_generation_ends(tmp_path, generation, save_steps, says):
    """Of 64 completions per step."""
    argv = ["--problems_per_step", "16", "--num_generations", "4", "--generation_batch_size", generation]
    argv += ["--config", str(tmp_path / "grpo.yaml"), "--save_steps", str(save_steps)]
    (tmp_path / "grpo.yaml").write_text("")
    if says is None:
        assert load_recipe("grpo", argv).trl.save_steps == save_steps
    else:
        with pytest.raises(RecipeError, match=says):
            load_recipe("grpo", argv)


def test_an_access_token_is_not_recorded_and_other_tokens_are(tmp_path):
    (tmp_path / "sft.yaml").write_text(
        f"mixture: [{SOURCE}]\neval_mixture: [{SOURCE}]\nconversations_per_step: 8\npad_token: <|pad|>\n"
    )
    recipe = load_recipe("sft", ["--config", str(tmp_path / "sft.yaml"), "--hub_token", "hf_secret"])
    assert recipe.hub_token == "hf_secret"
    assert "hf_secret" not in str(recipe.written)
    assert recipe.written["pad_token"] == "<|pad|>"
