"""The degradations of the published protocols: MATLAB's bicubic resizing, Gaussian noise and JPEG compression.

Images are NumPy arrays of shape (H, W) or (H, W, C). An argument that is not one of those described is an `InputError`.
"""

from __future__ import annotations

import io
import math
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image

from atd.errors import InputError
from atd.metrics import to_y

Border = Literal["edge", "symmetric"]
"""What lies beyond the border of an image that is resized: its last pixel, repeated, or its mirror image."""

RandomSource = np.random.Generator | np.random.RandomState
"""Where noise is drawn from."""


def crop_to_multiple(image: np.ndarray, multiple: int) -> np.ndarray:
    """View of the top-left part of `image` whose height and width are multiples of `multiple`."""
    height, width = image.shape[:2]
    return image[: height // multiple * multiple, : width // multiple * multiple]


def bicubic_downscale(image: np.ndarray, scale: int, border: Border = "edge") -> np.ndarray:
    """MATLAB's `imresize(image, 1/scale, 'bicubic')`, antialiased: the LR images of the super-resolution benchmarks.

    Args:
        image: (H, W) or (H, W, C), H and W multiples of `scale`. uint8 is rounded half up after each of the two
            passes, as MATLAB does; float16/32/64 of any range is computed in its own precision (float16 in float32),
            neither rounded nor clipped.
        scale: integer factor >= 1.
        border: "edge" repeats the border pixel (the published `LRBI` sets, older MATLAB), "symmetric" mirrors the
            image (newer MATLAB).

    Returns:
        (H // scale, W // scale[, C]) of the same dtype.
    """
    kernel = _downscale_filter(scale)
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise InputError(
            f"cannot reduce {height}x{width} by {scale}: both sides must be multiples of {scale}; "
            "crop the image with atd.degrade.crop_to_multiple first"
        )
    return _resize(image, kernel, border, round_rows=image.dtype == np.uint8)


def bicubic_upscale(image: np.ndarray, scale: int, border: Border = "edge") -> np.ndarray:
    """Bicubic interpolation, MATLAB's kernel: the bicubic baseline of the super-resolution papers.

    Takes and returns what `bicubic_downscale` does, with two differences: the result is (H * scale, W * scale[, C]),
    and uint8 is rounded once, after both passes, as the field's evaluation code does.
    """
    return _resize(image, _upscale_filter(scale), border)


def add_noise(image: np.ndarray, sigma: float, generator: RandomSource | None = None) -> np.ndarray:
    """`image` plus white Gaussian noise of standard deviation `sigma`/255, not clipped.

    Args:
        image: uint8, or floating point in [0, 1]; (H, W) or (H, W, C).
        sigma: noise level on the scale 0..255.
        generator: where the noise is drawn from. None is the published test protocol: NumPy's legacy generator
            seeded with 0 for every image, so each image always gets the same noise.

    Returns:
        float32 array of the same shape.
    """
    if sigma < 0:
        raise InputError(f"sigma must not be negative, got {sigma}")
    if generator is None:
        generator = np.random.RandomState(0)
    clean = image.astype(np.float64) / 255 if image.dtype == np.uint8 else image
    return (clean + generator.normal(0, sigma / 255, image.shape)).astype(np.float32)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """`image` compressed as JPEG at `quality` (libjpeg's scale, 1..100) and decoded again.

    Args:
        image: uint8, (H, W) or (H, W, 1) gray, or (H, W, 3) RGB (compressed with 4:2:0 chroma).
            The gray protocol feeds the luminance of colour images: `jpeg(studio_y(rgb), quality)`.

    Returns:
        uint8 array of the same shape.
    """
    if image.dtype != np.uint8:
        raise InputError(f"JPEG stores 8 bits: expected a uint8 image, got {image.dtype}")
    if not 1 <= quality <= 100:
        raise InputError(f"JPEG quality must be within 1..100, got {quality}")
    squeezed = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(squeezed).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).reshape(image.shape)


def studio_y(rgb: np.ndarray) -> np.ndarray:
    """Studio-range luminance (16..235, ITU-R BT.601) of a uint8 (H, W, 3) image, rounded half up to uint8 (H, W)."""
    return np.floor(to_y(rgb) + 0.5).astype(np.uint8)


# The factors are integers, so the kernel's samples repeat with every output pixel (down) or every `scale` output
# pixels (up). A filter is (step, phases): output pixel len(phases) * i + p is the sum of weight * input[step * i + k]
# over the (k, weight) pairs of phase p. Downwards the weights are dyadic for 2, 4 and 8, where float64 is exact, and
# multiples of 1/81 for 3, whose sums are never a tie: rounding uint8 half up is the same on every machine.
Filter = tuple[int, tuple[tuple[tuple[int, float], ...], ...]]


def _cubic(x: float) -> float:
    """Keys' cubic convolution kernel, a = -1/2 (IEEE Trans. ASSP 29(6), 1981)."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def _phase(centre: float, width: int) -> tuple[tuple[int, float], ...]:
    """Non-zero weights, summing to 1, of the kernel widened by `width` around `centre` in input pixels."""
    first = math.floor(centre) - 2 * width
    samples = [(k, _cubic((k - centre) / width)) for k in range(first, first + 4 * width + 2)]
    total = sum(weight for _, weight in samples)
    return tuple((k, weight / total) for k, weight in samples if weight)


@cache
def _downscale_filter(scale: int) -> Filter:
    _check_scale(scale)
    return scale, (_phase((scale - 1) / 2, scale),)


@cache
def _upscale_filter(scale: int) -> Filter:
    _check_scale(scale)
    return 1, tuple(_phase((2 * p + 1 - scale) / (2 * scale), 1) for p in range(scale))


def _check_scale(scale: int) -> None:
    if scale != int(scale) or scale < 1:
        raise InputError(f"scale must be an integer of at least 1, got {scale}")


def _resize(image: np.ndarray, kernel: Filter, border: Border, round_rows: bool = False) -> np.ndarray:
    """Rows (vertical direction) first, then columns, as MATLAB orders them when the factors are equal."""
    if border not in ("edge", "symmetric"):
        raise InputError(f"border must be 'edge' or 'symmetric', got {border!r}")
    if image.ndim not in (2, 3):
        raise InputError(f"expected an image of shape (H, W) or (H, W, C), got {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise InputError(f"expected a uint8 or floating-point image, got {image.dtype}")
    precision = np.dtype(np.float64) if image.dtype == np.uint8 else np.promote_types(image.dtype, np.float32)
    rows = _filter_rows(image, kernel, border, precision)
    if round_rows:
        rows = _round(rows)
    # The filtered axis comes first, so that every slice is long runs of contiguous memory.
    columns = _filter_rows(np.ascontiguousarray(rows.swapaxes(0, 1)), kernel, border, precision)
    result = np.ascontiguousarray(columns.swapaxes(0, 1))
    return _round(result) if image.dtype == np.uint8 else result.astype(image.dtype, copy=False)


def _filter_rows(image: np.ndarray, kernel: Filter, border: Border, precision: np.dtype) -> np.ndarray:
    step, phases = kernel
    count = image.shape[0] // step
    offsets = [k for phase in phases for k, _ in phase]
    before, after = max(0, -min(offsets)), max(0, max(offsets) - step + 1)
    padded = np.pad(image, [(before, after), *[(0, 0)] * (image.ndim - 1)], mode=border)
    result = np.zeros((count, len(phases), *image.shape[1:]), precision)
    term = np.empty((count, *image.shape[1:]), precision)
    for index, phase in enumerate(phases):
        for k, weight in phase:
            first = before + k
            np.multiply(padded[first : first + (count - 1) * step + 1 : step], weight, out=term, dtype=precision)
            result[:, index] += term
    return result.reshape(count * len(phases), *image.shape[1:])


def _round(values: np.ndarray) -> np.ndarray:
    """Half up to uint8."""
    return np.floor(values.clip(0, 255) + 0.5).astype(np.uint8)
