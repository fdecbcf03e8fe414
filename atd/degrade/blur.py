"""Random blur as Real-ESRGAN draws it (Wang et al., ICCVW 2021, section 3.1): kernels, and images through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

BlurKind = Literal["gaussian", "generalised", "plateau", "sinc"]


@dataclass(frozen=True)
class Blur:
    """One blur kernel.

    With the distance q = xᵀ Σ⁻¹ x from the centre, where Σ has the standard deviations `sigma` along axes that are
    turned by `angle`, a kernel is proportional to

    gaussian     exp(−q / 2)
    generalised  exp(−q^beta / 2)
    plateau      1 / (1 + q^beta)
    sinc         cutoff · J1(cutoff · r) / (2π r), a low-pass filter of radius `cutoff`, which rings

    kind    which of them
    size    pixels of a side, odd
    sigma   along both axes, in pixels; equal ones make an isotropic kernel
    angle   radians from the horizontal
    beta    of "generalised" and "plateau"
    cutoff  of "sinc", radians per pixel
    """

    kind: BlurKind
    size: int
    sigma: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    beta: float = 1.0
    cutoff: float = 0.0

    def kernel(self) -> Tensor:
        """(size, size) float64 on the CPU, with the sum 1; the first axis is the vertical one."""
        offsets = torch.arange(self.size, dtype=torch.float64) - self.size // 2
        y, x = torch.meshgrid(offsets, offsets, indexing="ij")
        values = self._low_pass(x, y) if self.kind == "sinc" else self._bell(x, y)
        return values / values.sum()

    def _low_pass(self, x: Tensor, y: Tensor) -> Tensor:
        radius = torch.hypot(x, y)
        centre = self.cutoff**2 / (4 * math.pi)
        bessel = cast("Tensor", torch.special.bessel_j1(self.cutoff * radius))  # pyright: ignore
        return torch.where(radius == 0, centre, self.cutoff * bessel / (2 * math.pi * radius))

    def _bell(self, x: Tensor, y: Tensor) -> Tensor:
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        along, across = (x * cosine + y * sine) / self.sigma[0], (y * cosine - x * sine) / self.sigma[1]
        distance = along**2 + across**2
        if self.kind == "plateau":
            return 1 / (1 + distance**self.beta)
        return torch.exp(-0.5 * (distance**self.beta if self.kind == "generalised" else distance))


def blur_batch(images: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """Each image through its own kernel; the border is mirrored, without its outermost pixel.

    Args:
        images: (n, c, h, w), floating point.
        kernels: n of odd sides, which may differ.

    Returns:
        As `images`.
    """
    count, channels, height, width = images.shape
    size = max(kernel.shape[-1] for kernel in kernels)
    weights = torch.stack([pad(kernel, [(size - kernel.shape[-1]) // 2] * 4) for kernel in kernels])
    weights = weights.to(images)[:, None].expand(count, channels, size, size).reshape(-1, 1, size, size)
    bordered = _mirror(images, size // 2).reshape(1, count * channels, height + size - 1, width + size - 1)
    return conv2d(bordered, weights, groups=count * channels).reshape(images.shape)


def blur_separable(images: Tensor, window: Tensor) -> Tensor:
    """All images through the kernel window · windowᵀ; the border as in `blur_batch`."""
    channels = images.shape[1]
    window = window.to(images)
    bordered = _mirror(images, len(window) // 2)
    rows = conv2d(bordered, window.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return conv2d(rows, window.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def _mirror(images: Tensor, border: int) -> Tensor:
    """dcb|abcd|cba, as often as a small image needs, which torch's own padding refuses."""
    rows, columns = (_mirrored_places(side, border).to(images.device) for side in images.shape[2:])
    return images[:, :, rows[:, None], columns]


def _mirrored_places(side: int, border: int) -> Tensor:
    period = max(2 * (side - 1), 1)
    places = torch.arange(-border, side + border) % period
    return torch.minimum(places, period - places)
