"""What a stage's data was like when it began, so that a resumed stage can say that it has changed since."""

from collections.abc import Iterable
from pathlib import Path

MANY = 3  # files named in a message


def source_state(datasets: Iterable[str]) -> dict[str, dict]:
    """By source: {file: [bytes, modified in ns]} of a file or folder, {"revision": commit} of a Hub id.

    Nothing is known of the built-in data, which is part of nanohf, and of a Hub that does not answer.
    """
    return {dataset: _state(dataset) for dataset in sorted(set(datasets) - {"builtin"})}


def _state(dataset: str) -> dict:
    path = Path(dataset)
    if path.is_file():
        return {path.name: _file(path)}
    if path.is_dir():
        files = (p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith("."))
        return {str(p.relative_to(path)): _file(p) for p in files}
    from huggingface_hub import HfApi

    try:
        return {"revision": HfApi().dataset_info(dataset, timeout=10).sha}
    except Exception:  # offline, gone, private: the stage itself says so where it matters
        return {}


def _file(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def source_changes(before: dict[str, dict], now: dict[str, dict]) -> list[str]:
    """A line for each source that is not what it was."""
    lines = []
    for dataset in sorted(before.keys() & now.keys()):
        old, new = before[dataset], now[dataset]
        if old == new or not old or not new:
            continue
        names = sorted(old.keys() | new.keys())
        changed = [change for name in names if (change := _change(name, old.get(name), new.get(name)))]
        more = f" and {len(changed) - MANY} more" if len(changed) > MANY else ""
        lines.append(f"{dataset}: {', '.join(changed[:MANY])}{more}")
    return lines


def _change(name: str, old, new) -> str | None:
    if old == new:
        return None
    if name == "revision":
        return f"revision {old} is now {new}"
    if old is None or new is None:
        return f"{name} is {'new' if old is None else 'gone'}"
    return f"{name} {f'has {new[0]:,} bytes, had {old[0]:,}' if old[0] != new[0] else 'was written again'}"
