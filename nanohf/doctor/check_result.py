"""What a check says, and how a check that itself crashes says it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One line: `status  stage: what (figure) — reason and fix`. status is ok, warn or fail."""

    status: str
    stage: str
    what: str
    figure: str = ""
    why: str = ""

    def __str__(self) -> str:
        figure = f" ({self.figure})" if self.figure else ""
        return f"{self.status:<4}  {self.stage}: {self.what}{figure}{f' — {self.why}' if self.why else ''}"


def attempt(stage: str, what: str, check: Callable[..., Iterable[Result] | Result], *args) -> Iterator[Result]:
    """The check's results as they come; if it crashes, one that says so, and the doctor continues."""
    try:
        found = check(*args)
        yield from [found] if isinstance(found, Result) else found
    except Exception as error:  # whatever it is, the other checks must still report
        lines = str(error).strip().splitlines() or [""]
        yield Result("fail", stage, what, "", f"the check ended in {type(error).__name__}: {lines[0]}")


def failed(results: list[Result]) -> bool:
    return any(result.status == "fail" for result in results)


def percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.0f}%"
