"""Where a licence is read: a dataset's or model's card on the Hub, or the README.md of a folder. Never raises."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from nanohf.data.hub_names import split_revision
from nanohf.data.licences import OTHER, UNKNOWN, known, strictest

LANGUAGE = re.compile(r"[a-z]{2,3}")


@dataclass(frozen=True)
class Licence:
    """id: as the Hub spells it, or `unknown`; origin: where it was read, or why it is not known.

    languages: those that the same card names, as codes: en, fr, zho.
    """

    id: str
    origin: str
    languages: tuple[str, ...] = ()


def folder_licence(folder: Path) -> Licence:
    """What the front matter of a folder's README.md says. A single file has none."""
    if not os.path.isdir(folder):  # of any text, where Path.is_dir() raises
        there = os.path.exists(folder)
        return Licence(UNKNOWN, "a single file has no card" if there else "there is no such file or folder")
    if not (folder / "README.md").is_file():
        return Licence(UNKNOWN, "the folder has no README.md")
    return _of_card(folder / "README.md", "the folder's README.md")


def hub_licence(repo_id: str, kind: str) -> Licence:
    """What the card of a dataset or model (`kind`) on the Hub says; without a network, its copy in the cache.

    repo_id: of a model also USER/NAME@REVISION, whose own card counts.
    """
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    from nanohf.data.hub_errors import hub_answers, offline

    cached_only = offline() or not hub_answers()
    name, revision = split_revision(repo_id)
    try:
        path = hf_hub_download(name, "README.md", repo_type=kind, revision=revision, local_files_only=cached_only)
    except LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if offline() else "the Hub does not answer"
        return Licence(UNKNOWN, f"its card is not in the cache, and {why}")
    except EntryNotFoundError:
        return Licence(UNKNOWN, "it has no card on the Hub")
    except RepositoryNotFoundError:
        return Licence(UNKNOWN, f"no such {kind} on the Hub, or this token may not read it")
    except (OSError, ValueError, httpx.HTTPError) as error:  # without its text, which may tell addresses
        return Licence(UNKNOWN, f"its card on the Hub cannot be read ({type(error).__name__})")
    return _of_card(Path(path), f"its card {'in the cache' if cached_only else 'on the Hub'}, {today()}")


def _of_card(path: Path, name: str) -> Licence:
    """A list of licences counts as its strictest."""
    from huggingface_hub import metadata_load

    try:
        header = metadata_load(path) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return Licence(UNKNOWN, f"{name}: its front matter cannot be read")
    values = _listed(header, "license")
    languages = tuple(filter(LANGUAGE.fullmatch, _listed(header, "language")))
    if not values:
        return Licence(UNKNOWN, f"{name} names no license", languages)
    if unlisted := [one for one in values if known(one) == UNKNOWN]:
        return Licence(UNKNOWN, f"{name} says {_short(unlisted[0])}", languages)
    return Licence(strictest(values), name if strictest(values) != OTHER else f"{name} says other", languages)


def _listed(header: dict, key: str) -> list[str]:
    value = header.get(key)
    return [str(one) for one in (value if isinstance(value, list) else [value]) if one]


def _short(value: str) -> str:
    """What stands in a card may be anything."""
    return repr(" ".join(value.split())[:60])


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
