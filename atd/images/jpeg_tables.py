"""The quantisation steps of JPEG as libjpeg scales them: ITU-T T.81, tables K.1 and K.2, by a quality from 1 to 100."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int64]
"""(8, 8) steps, rows of rising vertical frequency."""

LUMINANCE: Table = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.int64,
)
CHROMINANCE: Table = np.full((8, 8), 99, np.int64)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def steps_at(quality: int, table: Table) -> Table:
    """The steps that libjpeg writes for a quality of 1 to 100 (`jpeg_quality_scaling` in its jcparam.c)."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((table * percent + 50) // 100, 1, 255)
