"""Whether a picture holds less than its size promises: enlarged before, or blurred.

A picture that was enlarged by s is a sum of copies of the filter's kernel, one for each pixel of the small picture. How
much of it is not such a sum is the distance to a linear space, by least squares, along rows and along columns. That
distance is as small as the rounding of pixels for the kernel, factor and grid it was enlarged with, and grows at once
where the grid is shifted; a picture that is merely soft is near to it wherever the grid lies. So the two are told
apart. How sure that is: `python -m benchmarks.advice enlarged`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atd.advice.windows import Samples

FACTORS = (1.5, 2.0, 3.0, 4.0)
LEAST_GRID_RATIO = 1.35
"""How much farther a picture must be from its space on other grids than on its own to be called enlarged."""
LARGEST_RESIDUAL = 2.0
"""Of 255: farther from its space no picture is called enlarged."""
SOFT_RESIDUAL = 0.5
"""Of 255: nearer to that of a small picture, a picture holds no more than the small one does."""
LEAST_CONTRAST = 8.0
"""Standard deviation of a window from which on it tells of detail at all."""
SIDE, BORDER = 244, 12
"""Of a window, and rows at its ends that are not counted: the small picture beyond it is not known."""
_SMALLEST_SIDE = 64
_ROUNDING = 0.05
"""Added to residuals before they are compared: nothing is known below the rounding of pixels."""

Kernel = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """How much of its size a picture uses.

    enlarged  the factor of `FACTORS` by which it was enlarged; None: it was not, or by another factor or in another way
    soft      the factor of `FACTORS` by which it could be smaller and hold the same; None: it is sharp
    """

    enlarged: float | None = None
    soft: float | None = None


def resolution(windows: Sequence[Samples]) -> Resolution | None:
    """What windows of `SIDE` pixels say of the whole picture; None: they are too small or too plain to tell.

    Args:
        windows: (h, w) luma of one picture.
    """
    telling = [_cut(window) for window in windows if min(window.shape) >= _SMALLEST_SIDE]
    telling = [window for window in telling if window.std() >= LEAST_CONTRAST]
    if not telling:
        return None
    # The sharpest windows: a picture with a blurred background is none that is blurred.
    telling = sorted(telling, key=_sharpness)[-3:]
    fits = {
        (factor, name): np.sqrt(np.mean([_residuals(window, factor, name) ** 2 for window in telling], axis=0))
        for factor in FACTORS
        for name in KERNELS
    }
    return Resolution(enlarged=_enlarged_by(fits), soft=_softness(fits))


def _enlarged_by(fits: dict[tuple[float, str], NDArray[np.float64]]) -> float | None:
    """The largest factor that explains the picture about as well as the best does."""
    explained: dict[float, float] = {}
    for (factor, _), residuals in fits.items():
        least = _own_grid(residuals) + _ROUNDING
        others: NDArray[np.float64] = np.median(residuals, axis=1) + _ROUNDING
        ratio = float(np.sqrt(np.prod(others / least)))
        residual = _root_mean_square(least)
        if ratio >= LEAST_GRID_RATIO and residual <= LARGEST_RESIDUAL:
            explained[factor] = min(residual, explained.get(factor, np.inf))
    if not explained:
        return None
    best = min(explained.values())
    return max(factor for factor, residual in explained.items() if residual <= 1.5 * best)


def _softness(fits: dict[tuple[float, str], NDArray[np.float64]]) -> float | None:
    """The largest factor by which the picture could be smaller."""
    soft = [
        factor
        for factor in FACTORS
        if min(_root_mean_square(_own_grid(fits[factor, name])) for name in KERNELS) <= SOFT_RESIDUAL
    ]
    return max(soft, default=None)


def _own_grid(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of all shifts the least, along columns and along rows."""
    return np.asarray(residuals.min(axis=1), np.float64)


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _cut(window: Samples) -> Samples:
    """The square of a window whose side suits every factor, and room for shifted grids."""
    side = min(*window.shape, SIDE)
    side = (side - 4) // 12 * 12 + 4
    return window[:side, :side]


def _sharpness(window: Samples) -> float:
    return float(np.abs(np.diff(window, axis=0)).mean() + np.abs(np.diff(window, axis=1)).mean())


def _residuals(window: Samples, factor: float, name: str) -> NDArray[np.float64]:
    """(2, shifts) root mean square of what the space lacks, along columns and rows, for every shift of the grid."""
    side = len(window) - 4
    basis = _basis(side, factor, name)
    shifts = range(int(factor) if factor.is_integer() else 3)
    rows: list[list[float]] = []
    for turned in (window, window.T):
        row: list[float] = []
        for shift in shifts:
            part = turned[shift : shift + side]
            rest = part - basis @ (basis.T @ part)
            row.append(float(np.sqrt(np.mean(rest[BORDER:-BORDER] ** 2))))
        rows.append(row)
    return np.array(rows)


@functools.lru_cache(64)
def _basis(length: int, factor: float, name: str) -> NDArray[np.float32]:
    """Orthonormal columns that span all rows of `length` pixels which were enlarged by `factor` with a kernel.

    Pixels are areas, as in every program for pictures: pixel j lies at (j + ½)/s − ½ of the small picture.
    """
    places = (np.arange(length, dtype=np.float64) + 0.5) / factor - 0.5
    small = np.arange(-3, int(np.ceil(length / factor)) + 3)
    copies = KERNELS[name]((places[:, None] - small).astype(np.float64))
    copies = copies[:, np.abs(copies).sum(axis=0) > 1e-9]
    copies /= copies.sum(axis=1, keepdims=True)
    vectors, values, _ = np.linalg.svd(copies, full_matrices=False)
    return vectors[:, values > 1e-6 * values[0]].astype(np.float32)


def _box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((x >= -0.5) & (x < 0.5)).astype(np.float64)


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(1 - np.abs(x), 0, None)


def _cubic(a: float) -> Kernel:
    """Keys' cubic convolution kernel (IEEE TASSP 29(6), 1981) with the free parameter `a`."""

    def kernel(x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.abs(x)
        inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
        outer = a * (x**3 - 5 * x**2 + 8 * x - 4)
        return np.where(x < 1, inner, np.where(x < 2, outer, 0))

    return kernel


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


KERNELS: dict[str, Kernel] = {
    "nearest": _box,
    "linear": _triangle,
    "cubic": _cubic(-0.5),  # Pillow, MATLAB
    "cubic, sharper": _cubic(-0.75),  # OpenCV, torch
    "lanczos": _lanczos,
}
"""What programs enlarge by."""
