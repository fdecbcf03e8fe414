"""A table of what networks take on a card, measured on one like yours, in place of the built-in figures.

``ATD_MEMORY_TABLE=table.json`` names it. ``python -m benchmarks.gpu report OUT --memory-table table.json`` writes it
from measurements: bytes per input pixel beyond the weights, by architecture and `embed_dim`, then by dtype, and the
backend that they hold for.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from atd.errors import InputError
from atd.system.dtypes import DTYPES

VARIABLE = "ATD_MEMORY_TABLE"


@dataclass(frozen=True)
class MemoryTable:
    """Measured peaks of one backend on a CUDA card."""

    backend: str
    figures: dict[str, dict[str, float]]
    """Bytes per pixel by ``"ATD 216"``, then by ``"bfloat16"``."""

    def bytes_per_pixel(self, architecture: str, width: int, dtype: str) -> float | None:
        """Of exactly this architecture, width and dtype; None where that was not measured."""
        return self.figures.get(f"{architecture} {width}", {}).get(dtype)


def memory_table() -> MemoryTable | None:
    """The table that the environment names; None where it names none.

    Raises:
        InputError: it cannot be read, or is no such table.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    path = Path(name)
    try:
        state = path.stat()
        return _read(path, (state.st_mtime_ns, state.st_size))
    except OSError as error:
        raise InputError(f"{VARIABLE} names {path}, which cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=4)
def _read(path: Path, state: tuple[int, int]) -> MemoryTable:
    """`state` is when it was changed last, and its size: a file that is another by now is read again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        figures = cast("dict[str, dict[str, object]]", content["bytes_per_pixel"])
        values = [(dtype, value) for by_dtype in figures.values() for dtype, value in by_dtype.items()]
        good = all(dtype in DTYPES and isinstance(value, int | float) and value > 0 for dtype, value in values)
        if not good or not values or not isinstance(content["backend"], str):
            raise ValueError("a figure is no positive number, or there are none")
        return MemoryTable(content["backend"], cast("dict[str, dict[str, float]]", figures))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path} is no table of memory: expected {{"backend": …, "bytes_per_pixel": {{"ATD 216": {{"bfloat16": '
            f"…}}}}}}, as `python -m benchmarks.gpu report` writes it ({error})"
        ) from error
