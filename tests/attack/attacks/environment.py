"""Environment variables for the time of an attack."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def environment(**values: str | None) -> Generator[None, None, None]:
    """Set variables, or take them away (None), for as long as the block runs."""
    before = {name: os.environ.get(name) for name in values}

    def set_all(new: dict[str, str | None]) -> None:
        for name, value in new.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    set_all(values)
    try:
        yield
    finally:
        set_all(before)
