"""Rows that are left out: counted by reason, with the number of the first one."""

from dataclasses import dataclass, field

from nanohf.errors import RecipeError

MANY = 3  # reasons that a summary names


class Malformed(ValueError):
    """A row that nothing can be made of, where others of its source may be sound. The message is the reason."""


@dataclass
class Faults:
    """Rows are counted from 0."""

    first: dict[str, int] = field(default_factory=dict)  # by reason, the first row
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, row: int, reason: str) -> None:
        self.first.setdefault(reason, row)
        self.counts[reason] = self.counts.get(reason, 0) + 1

    def __len__(self) -> int:
        return sum(self.counts.values())

    def summary(self) -> str:
        """`2 x an assistant message is empty (first: row 17); 1 x ...`; empty if nothing was left out."""
        ranked = sorted(self.counts.items(), key=lambda item: -item[1])
        named = [f"{count:,} x {reason} (first: row {self.first[reason]:,})" for reason, count in ranked[:MANY]]
        more = [f"{len(ranked) - MANY} more reasons"] if len(ranked) > MANY else []
        return "; ".join(named + more)

    def refuse_most(self, source: str, rows: int) -> None:
        """
        Raises:
            RecipeError: more than half of a source's rows are left out, so that it is not what it was taken for.
        """
        if 2 * len(self) > rows:
            raise RecipeError(
                f"{source}: {len(self):,} of {rows:,} rows are malformed, and at most half of a source may be: "
                f"{self.summary()}"
            )
