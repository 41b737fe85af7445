"""A recipe upon another (`base:`), and what is refused of a recipe file whatever it says."""

import pytest

from nanohf.errors import RecipeError
from nanohf.recipe.loading import load_recipe

IDENTITY = 'exchanges: [{questions: ["Who are you?"], answers: ["A test."]}]\n'


@pytest.fixture
def load(tmp_path):
    """load(name, *argv) of recipes written by load.write(name, text); names may have folders."""

    def load(name: str, *argv: str, stage: str = "pretrain"):
        return load_recipe(stage, ["--config", str(tmp_path / name), *argv])

    def write(name: str, content: str | bytes) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    load.write = write
    return load


def test_a_recipe_says_what_differs_from_its_base(load):
    load.write("base/pretrain.yaml", "depth: 4\nmax_steps: 9\nseed: 7\n")
    load.write("mine/pretrain.yaml", "base: ../base/pretrain.yaml\ndepth: 6\n")
    recipe = load("mine/pretrain.yaml", "--seed", "8")
    assert recipe.written == {"depth": 6, "max_steps": 9, "seed": 8}
    assert (recipe.settings.depth, recipe.settings.max_steps, recipe.settings.seed) == (6, 9, 8)


def test_a_base_may_have_a_base(load):
    load.write("a.yaml", "depth: 1\nmax_steps: 1\nseed: 1\n")
    load.write("deep/b.yaml", "base: ../a.yaml\nmax_steps: 2\nseed: 2\n")
    load.write("c.yaml", "base: deep/b.yaml\nseed: 3\n")
    assert load("c.yaml").written == {"depth": 1, "max_steps": 2, "seed": 3}


def test_a_list_replaces_the_bases_and_null_a_value(load):
    load.write("base.yaml", "stages: [pretrain, sft]\nlimit: 5\n")
    load.write("mine.yaml", "base: base.yaml\nstages: [grpo]\nlimit: null\n")
    settings = load("mine.yaml", stage="evaluate").settings
    assert (settings.stages, settings.limit) == (["grpo"], None)


def test_an_identity_file_is_found_from_the_recipe_that_names_it(load, tmp_path):
    source = "{dataset: ../who.yaml, converter: identity, rows: 2}"
    held_out = "eval_mixture: [{dataset: builtin, config: problems, rows: 5, converter: gsm8k}]\n"
    load.write("base/who.yaml", IDENTITY)
    load.write("base/recipes/sft.yaml", f"stage: sft\nmixture: [{source}]\n{held_out}conversations_per_step: 8\n")
    load.write("mine/recipes/sft.yaml", "base: ../../base/recipes/sft.yaml\nmax_steps: 3\n")
    (found,) = load("mine/recipes/sft.yaml", stage="sft").settings.mixture
    assert found.dataset == str(tmp_path / "base/who.yaml")

    load.write("mine/recipes/sft.yaml", f"base: ../../base/recipes/sft.yaml\nmixture: [{source}]\n")
    with pytest.raises(RecipeError, match=r"mine/who\.yaml cannot be read"):
        load("mine/recipes/sft.yaml", stage="sft")
    load.write("mine/who.yaml", IDENTITY)
    (found,) = load("mine/recipes/sft.yaml", stage="sft").settings.mixture
    assert found.dataset == str(tmp_path / "mine/who.yaml")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"mine.yaml": "base: mine.yaml"}, "base=mine.yaml leads back to this recipe"),
        ({"mine.yaml": "base: a.yaml", "a.yaml": "base: b/../mine.yaml", "b/c": ""}, "leads back to this recipe"),
        ({"mine.yaml": "base: a.yaml", "a.yaml": "base: a.yaml"}, "leads back to this recipe"),
        ({"mine.yaml": "base: none.yaml"}, "none.yaml cannot be read: No such file"),
        ({"mine.yaml": "base: folder", "folder/a.yaml": ""}, "folder cannot be read: Is a directory"),
        ({"mine.yaml": "base: 3"}, "base=3 must be the path of another recipe"),
        ({"mine.yaml": "base: [a.yaml]"}, "must be the path of another recipe"),
        ({"mine.yaml": "base: a.yaml", "a.yaml": "- depth"}, "must map keys to values, not be a list"),
        ({"mine.yaml": "base: a.yaml", "a.yaml": "dpeth: 3"}, "unknown key 'dpeth'. Did you mean 'depth'?"),
        ({"mine.yaml": "base: a.yaml", "a.yaml": "depth: two"}, "depth='two' must be a whole number"),
    ],
)
def test_a_base_that_cannot_be(load, files, says):
    for name, text in files.items():
        load.write(name, text)
    with pytest.raises(RecipeError) as error:
        load("mine.yaml")
    assert says in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_with_or_without_a_mark(load, encoding):
    load.write("mine.yaml", "depth: 3  # größer\n".encode(encoding))
    assert load("mine.yaml").settings.depth == 3


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_refused_with_the_cure(load, encoding):
    load.write("mine.yaml", "depth: 3  # größer\n".encode(encoding))
    with pytest.raises(RecipeError, match=r"mine\.yaml is not UTF-8 text .* Save it as UTF-8\."):
        load("mine.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("depth: 3\nmax_steps: 2\ndepth: 4\n", "depth is there twice: leave one out"),
        ("1: 2\n", "unknown key 1"),
        ("no: 2\n", "unknown key False"),
        ("depth: 3\n\tseed: 2\n", "is not valid YAML"),
    ],
)
def test_keys_that_yaml_would_lose_or_turn_into_something_else(load, text, says):
    load.write("mine.yaml", text)
    with pytest.raises(RecipeError) as error:
        load("mine.yaml")
    assert says in str(error.value)


def test_an_empty_recipe_is_all_defaults(load):
    load.write("mine.yaml", "# nothing yet\n")
    assert load("mine.yaml").written == {}
    assert load("mine.yaml").settings.depth == 20
