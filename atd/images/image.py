"""A decoded image: pixels, metadata, and the exception of everything that reads or writes one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np


class ImageError(ValueError):
    """A file that cannot be read or written as asked; the message is one sentence that names the file."""


@dataclass(frozen=True)
class Metadata:
    """What an image file says beside its pixels; orientation is never part of it, it has been applied."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image, upright.

    pixels    (h, w, c) uint8, uint16 or float32 in [0, 1]; c is 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha
    metadata  colour profile and the like
    format    Pillow's name of the format it was read from
    """

    pixels: np.ndarray
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "PNG"


class Header(NamedTuple):
    """What a file says before its pixels are decoded."""

    shape: tuple[int, int, int]
    """(h, w, c) of the upright image, in the layout of `Picture`."""
    dtype: np.dtype


@dataclass(frozen=True)
class SaveOptions:
    """How lossy formats are written.

    quality      1 to 100, for JPEG (95 when None) and WebP (lossless when None)
    subsampling  of JPEG's chroma
    """

    quality: int | None = None
    subsampling: Literal["444", "422", "420"] = "444"

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"expected a quality from 1 to 100, got {self.quality}")
        if self.subsampling not in ("444", "422", "420"):
            raise ValueError(f"expected subsampling 444, 422 or 420, got {self.subsampling!r}")


def check_unit_range(pixels: np.ndarray) -> None:
    """Refuse float samples outside [0, 1], which would be cut off in the result."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(f"float samples lie between {low:g} and {high:g}, expected [0, 1]: scale the image first")
