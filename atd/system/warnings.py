"""Warnings that point at the line of the caller's own code."""

from __future__ import annotations

import inspect
import os
import warnings
from pathlib import Path

PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


def warn_caller(message: str) -> None:
    """A UserWarning at the innermost line outside this package, however deep the call came in."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
