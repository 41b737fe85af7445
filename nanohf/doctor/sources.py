"""Are the recipe's texts, conversations and problems there? Folders were looked at when the recipe was loaded."""

import os

from datasets import load_dataset_builder
from datasets.exceptions import DatasetNotFoundError

from nanohf.data.sources import BUILTIN

from .result import Result

READ_WITH_THE_RECIPE = ("identity",)  # a file, and no dataset
NO_NETWORK = (ConnectionError, TimeoutError)


def sources_of(stage: str, configs: tuple) -> list[tuple[str, str | None, str | None]]:
    """(dataset, config, split) of all that a stage reads; split None where any will do."""
    config = configs[0]
    found = []
    if hasattr(config, "dataset"):
        found.append((config.dataset, config.dataset_config, "train" if stage == "grpo" else None))
        found += [(config.dataset, config.dataset_config, "test")] * (stage in ("grpo", "evaluate"))
    if hasattr(config, "text_dataset"):
        found.append((config.text_dataset, config.text_dataset_config, None))
    for name in ("mixture", "eval_mixture"):
        lines = [source for source in getattr(config, name, []) if source.converter not in READ_WITH_THE_RECIPE]
        found += [(source.dataset, source.config, source.split) for source in lines]
    return list(dict.fromkeys(found))


def reachable(stage: str, dataset: str, config: str | None, splits: list[str]) -> Result:
    """The source exists, has this configuration and these splits: its file list is read, no data."""
    named = " ".join(filter(None, (dataset, config)))
    what = f"source {named}"
    if dataset == BUILTIN:
        return Result("ok", stage, what, "builtin")
    try:
        found = list(load_dataset_builder(dataset, config).config.data_files or {})
    except DatasetNotFoundError:
        why = (
            f"dataset={dataset!r} is neither on the Hub nor a folder here; mind the spelling, or log in if it is gated"
        )
        return Result("fail", stage, what, "missing", why)
    except NO_NETWORK as error:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            why = "cannot check offline, and it is not in the cache; unset HF_HUB_OFFLINE, or fetch it before the run"
            return Result("warn", stage, what, "not checked", why)
        return Result("fail", stage, what, "unreachable", f"the Hub does not answer: {str(error).splitlines()[0]}")
    except ValueError as error:  # an unknown configuration; the message lists those there are
        return Result("fail", stage, what, "no such configuration", " ".join(str(error).split()))
    if found and (missing := [split for split in splits if split not in found]):
        why = f"it has {', '.join(found)}; set split in the recipe"
        return Result("fail", stage, what, f"no split {', '.join(missing)}", why)
    return Result("ok", stage, what, ", ".join(found))


def check_sources(stage: str, configs: tuple) -> list[Result]:
    grouped: dict[tuple, list[str]] = {}
    for dataset, config, split in sources_of(stage, configs):
        grouped.setdefault((dataset, config), []).extend([split] if split else [])
    return [reachable(stage, dataset, config, splits) for (dataset, config), splits in grouped.items()]
