"""A decoded image, the header of one that is not decoded yet, and how samples become tensors and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from atd.errors import ImageError, InputError

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_PEAKS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65_535}
"""Full intensity of integer samples; that of float samples is 1."""

LARGEST_INPUT = 178_956_970
"""Pixels of a file, beyond which Pillow refuses it too: few bytes may claim any size, and cost weeks."""


@dataclass(frozen=True)
class Metadata:
    """What an image file says beside its pixels; orientation is never part of it, it has been applied."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class ImageData:
    """A decoded image, upright.

    pixels    (h, w, c) uint8, uint16 or float32 in [0, 1]; c is 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha
    metadata  colour profile and the like
    format    Pillow's name of the format it was read from
    """

    pixels: np.ndarray
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "PNG"


class ImageHeader(NamedTuple):
    """What a file says before its pixels are decoded."""

    shape: tuple[int, int, int]
    """(h, w, c) of the upright image, in the layout of `ImageData`."""
    dtype: np.dtype

    @property
    def is_gray(self) -> bool:
        """One channel, or two of which the second is alpha."""
        return self.shape[2] <= 2


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
            raise InputError(f"expected a quality from 1 to 100, got {self.quality}")
        if self.subsampling not in ("444", "422", "420"):
            raise InputError(f"expected subsampling 444, 422 or 420, got {self.subsampling!r}")


def check_unit_range(pixels: np.ndarray) -> None:
    """Refuse float samples outside [0, 1], which would be cut off in the result, with an `ImageError`."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(f"float samples lie between {low:g} and {high:g}, expected [0, 1]: scale the image first")


def narrowed(pixels: np.ndarray) -> np.ndarray:
    """32-bit integers as uint16, after refusing those beyond it with an `ImageError`."""
    if pixels.min() < 0 or pixels.max() > SAMPLE_PEAKS[np.dtype(np.uint16)]:
        raise ImageError("32-bit integer samples beyond 65535 cannot be restored: convert the image to 16 bits first")
    return pixels.astype(np.uint16)


def array_samples(array: np.ndarray) -> np.ndarray:
    """An array that a caller gave as an image, as (h, w, c) of uint8, uint16 or float32.

    Raises:
        InputError: its shape or type is none of an image.
    """
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] > 4):
        raise InputError(f"expected an array (h, w) or (h, w, 1|2|3|4), got shape {array.shape}")
    if array.dtype not in SAMPLE_PEAKS and array.dtype.kind != "f":
        raise InputError(f"expected an array of uint8, uint16 or float in [0, 1], got {array.dtype}")
    samples = array.reshape(*array.shape[:2], -1)
    return samples.astype(np.float32) if array.dtype.kind == "f" else samples


def samples_to_tensor(pixels: np.ndarray) -> Tensor:
    """(h, w, c) uint8, uint16 or float → a new (c, h, w) float32 tensor; integers are divided by their peak."""
    import torch  # what only reads files starts without it

    x = torch.as_tensor(np.array(np.moveaxis(pixels, 2, 0), dtype=np.float32, order="C"), device="cpu")
    peak = SAMPLE_PEAKS.get(pixels.dtype)
    return x.div_(peak) if peak else x


def tensor_to_samples(x: Tensor, dtype: np.dtype) -> np.ndarray:
    """(c, h, w) float32 in [0, 1], which is used up → (h, w, c) of `dtype`, rounded to the nearest sample."""
    peak = SAMPLE_PEAKS.get(dtype)
    x = x.permute(1, 2, 0)
    return np.ascontiguousarray((x.mul_(peak).round_() if peak else x).numpy().astype(dtype))
