"""What the Hub may answer when a source is opened, as errors a user can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import datasets
import httpx
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.constants import ENDPOINT

from nanohf.errors import RecipeError

NO_NETWORK = (ConnectionError, TimeoutError, httpx.TransportError)
SECONDS = 5


class NotChecked(Exception):
    """A source on the Hub that is not in the cache, while HF_HUB_OFFLINE is set."""


def offline() -> bool:
    """Whether HF_HUB_OFFLINE was set when `datasets` was loaded."""
    return bool(datasets.config.HF_HUB_OFFLINE)


@cache
def hub_answers() -> bool:
    """Asked once: `datasets` would try each source for half a minute."""
    try:
        httpx.head(ENDPOINT, timeout=SECONDS)
    except httpx.TransportError:
        return False
    return True


@contextmanager
def hub_errors(dataset: str) -> Iterator[None]:
    """
    Raises:
        RecipeError: it is not there, has no such configuration, or the Hub does not answer.
        NotChecked
    """
    if not offline() and not hub_answers():
        raise RecipeError(
            f"dataset={dataset!r}: {ENDPOINT} does not answer. HF_HUB_OFFLINE=1 uses what is in the cache"
        )
    try:
        yield
    except RecipeError:
        raise
    except DatasetNotFoundError as error:
        raise RecipeError(
            f"dataset={dataset!r} is neither here nor on the Hub. Check the spelling; if it is gated or private, log "
            "in with hf auth login"
        ) from error
    except NO_NETWORK as error:
        if offline():
            raise NotChecked(f"dataset={dataset!r} is not in the cache, and HF_HUB_OFFLINE is set") from error
        raise RecipeError(f"dataset={dataset!r}: the Hub does not answer ({first_line(error)})") from error
    except ValueError as error:  # an unknown configuration; the message lists those there are
        raise RecipeError(f"dataset={dataset!r}: {' '.join(str(error).split())}") from error


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
