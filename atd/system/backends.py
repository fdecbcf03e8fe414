"""The backends of the ops by name: for the ops, and for the command line, which must know them without torch."""

from __future__ import annotations

from typing import Literal, get_args

Backend = Literal["auto", "triton", "native", "torch", "reference"]
BACKENDS: tuple[str, ...] = get_args(Backend)
