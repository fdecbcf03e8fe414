"""What JPEG has done to a picture: from the tables in the file, or from the pixels that it has left.

The Independent JPEG Group's library (libjpeg) scales one table of quantisation steps by a quality from 1 to 100
(`atd.images.jpeg_tables`). A decoded picture betrays the steps: its DCT
coefficients are multiples of them, as nobody has rounded them otherwise since (Fan and de Queiroz, "Identification of
Bitmap Compression History: JPEG Detection and Quantizer Estimation", IEEE TIP 12(2), 2003). How sure that is:
`python -m benchmarks.advice jpeg`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atd.advice.windows import Samples
from atd.images.jpeg_tables import LUMINANCE, steps_at

LEAST_AGREEMENT = 0.2
"""Of coefficients with the multiples of a table's steps, from -1 to 1, that is no chance."""
FEWEST_COEFFICIENTS = 100
MOST_BLOCKS = 4096
_BLOCKS_FOR_GRID, _QUALITIES_FOR_GRID = 256, range(10, 97, 3)


class TableQuality(NamedTuple):
    """The quality of libjpeg that a table of luma steps stands for."""

    quality: int
    exact: bool
    """Whether it is libjpeg's own table; otherwise another program's, and this quality has the nearest."""


def quality_of_table(steps: Sequence[int]) -> TableQuality:
    """The quality whose table is `steps`, 64 of them row by row, or the nearest by the mean ratio of the steps."""
    table = np.asarray(steps, np.float64).reshape(8, 8)
    distances = [
        float(np.abs(np.log(np.maximum(table, 1) / steps_at(quality, LUMINANCE))).mean()) for quality in range(1, 101)
    ]
    best = int(np.argmin(distances))
    return TableQuality(best + 1, distances[best] == 0)


def quality_of_pixels(windows: Sequence[Samples]) -> int | None:
    """The quality at which a picture was compressed before it was decoded into these pixels.

    Args:
        windows: (h, w) luma of one picture, beginning at multiples of 8 rows and columns.

    Returns:
        libjpeg's quality, or None: no trace was found. There is none from about 97 on, where the steps are as fine as
        the rounding of pixels, nor where the picture was enlarged or reduced after
        it was compressed.
    """
    for find_grid in (_grid_of_files, _likeliest_grid):
        agreements = _agreements(_coefficients(windows, find_grid(windows), MOST_BLOCKS), range(1, 101))
        best = max(agreements.values(), default=0.0)
        if best >= LEAST_AGREEMENT:
            # Half a step explains whatever a step does: of qualities that agree alike, the lowest has the true steps.
            return min(quality for quality, agreement in agreements.items() if agreement >= 0.97 * best)
    return None


def _grid_of_files(windows: Sequence[Samples]) -> tuple[int, int]:
    """Blocks begin with the picture, where nobody has cut it."""
    return 0, 0


def _likeliest_grid(windows: Sequence[Samples]) -> tuple[int, int]:
    """Row and column at which blocks of 8 begin, of a picture that was cut after it was compressed."""

    def agreement(shift: tuple[int, int]) -> float:
        coefficients = _coefficients(windows, shift, _BLOCKS_FOR_GRID)
        return max(_agreements(coefficients, _QUALITIES_FOR_GRID).values(), default=0.0)

    return max(itertools.product(range(8), range(8)), key=agreement)


@functools.cache
def _dct() -> NDArray[np.float32]:
    """The orthonormal DCT-II of 8 samples; rows are frequencies."""
    place, frequency = np.arange(8), np.arange(8)[:, None]
    matrix = np.sqrt(2 / 8) * np.cos((2 * place + 1) * frequency * np.pi / 16)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


@functools.cache
def _low_frequencies() -> NDArray[np.bool_]:
    """Those that compression leaves, without the mean."""
    order = np.add.outer(np.arange(8), np.arange(8))
    return (order > 0) & (order <= 4)


def _coefficients(windows: Sequence[Samples], shift: tuple[int, int], most: int) -> NDArray[np.float32]:
    """(n, frequencies) DCT of at most so many of the blocks that are neither constant nor clipped."""
    parts: list[NDArray[np.float32]] = []
    for window in windows:
        part = window[shift[0] :, shift[1] :]
        rows, columns = part.shape[0] // 8, part.shape[1] // 8
        blocks = part[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8).swapaxes(1, 2).reshape(-1, 8, 8)
        blocks = blocks[:: max(1, len(windows) * len(blocks) // most)]
        low, high = blocks.min(axis=(1, 2), initial=255), blocks.max(axis=(1, 2), initial=0)
        parts.append(blocks[(low > 0) & (high < 255) & (high > low)])
    coefficients = _dct() @ np.concatenate(parts) @ _dct().T
    return coefficients[:, _low_frequencies()].astype(np.float32, copy=False)


def _agreements(coefficients: NDArray[np.float32], qualities: Iterable[int]) -> dict[int, float]:
    """For each quality, how well coefficients lie at multiples of its steps: the mean of cos 2π·coefficient/step.

    1: all do; 0: they lie anywhere. Only those count that the quality would not have made zero; qualities for which
    these are too few are left out.
    """
    agreements: dict[int, float] = {}
    magnitudes = np.abs(coefficients)
    for quality in qualities:
        steps = steps_at(quality, LUMINANCE)[_low_frequencies()].astype(np.float32)
        kept = (magnitudes > steps / 2) & (steps > 1)
        count = int(kept.sum())
        if count >= FEWEST_COEFFICIENTS:
            turns = (coefficients / steps)[kept]
            agreements[quality] = float(np.cos((2 * np.pi) * turns).sum()) / count
    return agreements
