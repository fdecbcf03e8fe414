"""Which files this process opens, as the interpreter itself reports it (audit events); nothing is replaced."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_recordings: list[Counter[Path]] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    # An audit hook stays for the life of the process: it must cost nothing while nobody records.
    if _recordings and event == "open" and isinstance(arguments[0], str | Path):
        for recording in _recordings:
            recording[Path(arguments[0])] += 1


sys.addaudithook(_hook)


@contextmanager
def recorded_opens() -> Iterator[Counter[Path]]:
    """How often each path was opened within the block, by any thread."""
    recording: Counter[Path] = Counter()
    _recordings.append(recording)
    try:
        yield recording
    finally:
        _recordings.remove(recording)
