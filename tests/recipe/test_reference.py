"""docs/recipes.md says what the schemas say."""

from nanohf.recipe.reference import PAGE, page


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m nanohf.recipe.reference"
