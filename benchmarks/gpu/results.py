"""Results as rows of a CSV file: one figure each, or the reason why there is none."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

MEASURED, REHEARSED, FAILED = "measured", "rehearsed", "failed"
NOT_REACHED, NEEDS_CARD, NOT_HERE = "not reached", "needs a card", "not here"

Key = tuple[str, str, str, str]
"""Step, name, size and variant of a case."""


@dataclass(frozen=True)
class Row:
    """One figure of one case. Without a figure, `message` says why."""

    call: str
    step: str
    name: str
    size: str
    variant: str
    quantity: str
    value: str
    status: str
    message: str = ""

    @property
    def key(self) -> Key:
        return self.step, self.name, self.size, self.variant

    @property
    def ends_case(self) -> bool:
        """Whether it is the last row of its case: how long that took, or why nothing came of it."""
        return self.quantity in ("", "seconds")


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows, which are on the disk when this returns: the process may be stopped at any time."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(field.name for field in fields(Row))
        writer.writerows(astuple(row) for row in rows)


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**row) for row in csv.DictReader(file)]


def done(rows: Iterable[Row]) -> set[Key]:
    """The cases that need not be measured any more."""
    return {row.key for row in rows if row.ends_case and row.status != NOT_REACHED}


def reason(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
