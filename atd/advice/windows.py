"""Parts of a picture that stand for the whole: what is measured costs the same for a phone's photo as for a crop."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""Intensities of 0 to 255, (h, w) or (h, w, c)."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B (ITU-R BT.601), as JPEG has them."""


def spread_windows(pixels: np.ndarray, side: int, count: int, *, align: int = 1) -> list[np.ndarray]:
    """At most `count` views of `side` × `side` pixels (less where the picture is smaller), spread evenly over it.

    Args:
        pixels: (h, w) or (h, w, c).
        side: of a window.
        count: the most windows; a square number.
        align: rows and columns at which windows begin are multiples of it.
    """
    height, width = pixels.shape[:2]
    most = int(count**0.5)

    def starts(length: int) -> list[int]:
        room = max(length - side, 0)
        number = min(most, room // side + 1 if room else 1)
        places = np.linspace(0, room, number) if number > 1 else [room / 2]
        return sorted({int(place) // align * align for place in places})

    return [
        pixels[top : top + side, left : left + side] for top, left in itertools.product(starts(height), starts(width))
    ]


def intensities(pixels: np.ndarray, peak: float) -> Samples:
    """Samples of any type, of which `peak` is full intensity, as floats of 0 to 255."""
    return pixels.astype(np.float32) * np.float32(255 / peak)


def luma(samples: Samples) -> Samples:
    """(h, w, 1|3) → (h, w): the one channel, or 0.299 R + 0.587 G + 0.114 B."""
    return samples[..., 0] if samples.shape[2] == 1 else samples @ LUMA
