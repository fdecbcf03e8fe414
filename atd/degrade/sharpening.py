"""Unsharp masking: the sharpened targets of Real-ESRGAN's trainings."""

from __future__ import annotations

import torch
from torch import Tensor

from atd.degrade.blur import blur_separable


def sharpen(images: Tensor, radius: int = 50, weight: float = 0.5, threshold: float = 10.0) -> Tensor:
    """Unsharp masking where the detail exceeds a threshold, blended in softly.

    Args:
        images: (n, c, h, w), floating point in [0, 1].
        radius: side of the Gaussian window in pixels, made odd by one more; its standard deviation is OpenCV's choice
            for a window, 0.3·((side − 1)/2 − 1) + 0.8: 8 pixels for 51.
        weight: how much of the detail is added.
        threshold: detail from here on is sharpened, on the scale 0..255.

    Returns:
        The same shape, in [0, 1].
    """
    side = radius + 1 - radius % 2
    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8
    places = torch.arange(side, dtype=torch.float64) - side // 2
    window = torch.exp(-(places**2) / (2 * sigma**2))
    window /= window.sum()

    detail = images - blur_separable(images, window)
    mask = blur_separable((detail.abs() * 255 > threshold).to(images), window)
    sharper = (images + weight * detail).clamp(0, 1)
    return mask * sharper + (1 - mask) * images
