"""A YAML file as a mapping, or a message that says what is wrong with it."""

from pathlib import Path
from typing import Any

import yaml

from nanohf.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [str(key.value) for key, _ in node.value]
        if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(problem=f"{', '.join(twice)} is there twice: leave one out")
        return super().construct_mapping(node, deep)


def read_mapping(path: Path) -> dict[str, Any]:
    """The file's keys and values; {} if it is empty.

    Raises:
        RecipeError: a file that is missing, not UTF-8, not YAML, or something other than a mapping.
    """
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path} is not UTF-8 text (byte {error.start:,}). Save it as UTF-8.") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path} is not valid YAML: {error}") from error
    if recipe is None:
        return {}
    if not isinstance(recipe, dict):
        raise RecipeError(f"recipe {path} must map keys to values, not be a {type(recipe).__name__}")
    return recipe
