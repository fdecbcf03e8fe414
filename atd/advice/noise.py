"""How strong the noise of a picture is, from its smoothest patches.

The eigenvalues of the covariance of small patches are those of the picture's content, a few large ones, and many that
white noise makes all alike: its variance. They are told apart as by Chen, Zhu and Heng ("An Efficient Statistical
Method for Image Noise Level Estimation", ICCV 2015): the largest are taken away until the mean of the rest is their
median. Patches with more texture than noise would give them are left out, as by Liu, Tanaka and Okutomi ("Single-Image
Noise Level Estimation for Blind Denoising", IEEE TIP 22(12), 2013). How far the estimate is off:
`python -m benchmarks.advice noise`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from atd.advice.windows import Samples

SIDE = {1: 7, 3: 6}
"""Of a patch, by the number of channels."""
MOST_PATCHES = 40_000
FEWEST_PATCHES, FEWEST_SMOOTH = 3, 15
"""Patches for each sample of one: without as many all told nothing is estimated, nor the smooth ones alone."""
_LARGEST_CLIPPED_SHARE = 0.05
"""Of a patch's samples at 0 or 255, where noise is cut off: more of them would make it look weaker than it is."""
_TEXTURE_QUANTILE = 0.99
"""Share of patches without any texture that are taken for such."""
_ROUNDS = 15


def noise_level(windows: Sequence[Samples]) -> float | None:
    """Standard deviation of the white noise in the windows, on the scale of 0 to 255.

    In colour that is the noise which differs between the channels; noise that is the same in all of them is for this
    a part of the picture, and is found in their luma.

    Args:
        windows: (h, w, 1) or (h, w, 3) of one picture.

    Returns:
        The estimate; None where there are too few patches, or too many that are constant or clipped.
    """
    channels = windows[0].shape[2]
    patches = _patches(windows, SIDE[channels])
    samples = SIDE[channels] ** 2 * channels
    if len(patches) < FEWEST_PATCHES * samples:
        return None
    textures, limit = _texture(patches), _largest_texture(SIDE[channels], channels)
    # From above: from below, patches in which noise was clipped would be taken for the smooth ones.
    sigma = _balanced(_eigenvalues(patches))
    for _ in range(_ROUNDS):
        smooth = patches[textures <= limit * sigma**2]
        if len(smooth) < FEWEST_SMOOTH * samples:
            break
        previous, sigma = sigma, _balanced(_eigenvalues(smooth))
        if abs(previous - sigma) < 0.01:
            break
    return sigma


def _patches(windows: Sequence[Samples], side: int) -> NDArray[np.float32]:
    """(n, side, side, c) of all windows, but for those that are constant or clipped."""
    limit = MOST_PATCHES / len(windows)
    parts: list[NDArray[np.float32]] = []
    for window in windows:
        if min(window.shape[:2]) < side:
            continue
        places = sliding_window_view(window, (side, side), axis=(0, 1))
        step = max(1, int(np.ceil((places.shape[0] * places.shape[1] / limit) ** 0.5)))
        chosen = np.moveaxis(places[::step, ::step], 2, -1).reshape(-1, side, side, window.shape[2])
        flat = chosen.reshape(len(chosen), -1)
        clipped = ((flat <= 0) | (flat >= 255)).mean(axis=1)
        parts.append(chosen[(clipped <= _LARGEST_CLIPPED_SHARE) & (flat.max(axis=1) > flat.min(axis=1))])
    return np.concatenate(parts) if parts else np.empty((0, side, side, 1), np.float32)


def _texture(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum of the squared gradients of each patch."""
    across = (patches[:, :, 2:] - patches[:, :, :-2]) / 2
    down = (patches[:, 2:] - patches[:, :-2]) / 2
    return np.square(across).sum(axis=(1, 2, 3)) + np.square(down).sum(axis=(1, 2, 3))


@functools.cache
def _largest_texture(side: int, channels: int) -> float:
    """What `_texture` of noise of variance 1 hardly ever exceeds."""
    noise = np.random.default_rng(0).standard_normal((4000, side, side, channels), np.float32)
    return float(np.quantile(_texture(noise), _TEXTURE_QUANTILE))


def _eigenvalues(patches: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of the covariance of the patches, ascending."""
    flat = patches.reshape(len(patches), -1)
    flat = flat - flat.mean(axis=0)
    covariance = flat.T @ flat / len(flat)
    return np.linalg.eigvalsh(covariance.astype(np.float64)).astype(np.float64)


def _balanced(eigenvalues: NDArray[np.float64]) -> float:
    """The root of the mean of the smaller ones, as many of them as have their mean for their median."""
    for count in range(len(eigenvalues), 0, -1):
        kept = eigenvalues[:count]
        mean = kept.mean()
        if (kept > mean).sum() >= (kept < mean).sum():
            return float(np.sqrt(max(mean, 0)))
    return float(np.sqrt(max(eigenvalues[0], 0)))
