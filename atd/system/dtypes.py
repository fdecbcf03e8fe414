"""Floating-point types by the names that people give them: for the library, and for the command line without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atd.errors import InputError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16", "float64")
"""The types that networks are computed in, by torch's names."""
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp64": "float64"}


def dtype_name(text: str) -> str:
    """Torch's name of a type that is written as in ``fp16`` or ``torch.float16``; any other text as it is."""
    name = text.lower().removeprefix("torch.")
    return _SHORT.get(name, name)


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The type of a name; torch's own types and None as they are.

    Raises:
        InputError: there is no such floating-point type.
    """
    if not isinstance(dtype, str):
        return dtype
    import torch  # the command line asks this module for names without it

    name = dtype_name(dtype)
    if name not in DTYPES:
        raise InputError(
            f"there is no dtype {dtype!r} for networks: expected {', '.join(DTYPES)}, or {', '.join(_SHORT)} for short"
        )
    return getattr(torch, name)
