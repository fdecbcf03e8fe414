"""Small networks with known behaviour, in the shape that restoration expects of a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Nearest(nn.Module):
    """Nearest-neighbour upscaling: exact whatever the tiles. Counts calls and remembers tile sizes."""

    def __init__(self, scale: int = 4, in_channels: int = 3, size_multiple: int = 1, most_pixels: int = 10**9) -> None:
        super().__init__()
        self.scale, self.in_channels, self.size_multiple = scale, in_channels, size_multiple
        self.most_pixels = most_pixels
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        if x.shape[0] * x.shape[-2] * x.shape[-1] > self.most_pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate too much")
        return x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)


class Convolution(nn.Module):
    """A box filter of (2·radius+1)² with zero padding."""

    def __init__(self, radius: int, in_channels: int = 3) -> None:
        super().__init__()
        self.radius, self.scale, self.in_channels, self.size_multiple = radius, 1, in_channels, 1

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * self.radius + 1, stride=1, padding=self.radius)


class Learned(nn.Module):
    """Something with weights that depends on orientation and neither commutes with flips nor keeps channels apart."""

    def __init__(self, in_channels: int = 3, scale: int = 2) -> None:
        super().__init__()
        self.scale, self.in_channels, self.size_multiple = scale, in_channels, 1
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Conv2d(in_channels, in_channels * scale**2, 3, padding=1)
        with torch.no_grad():
            for parameter in self.body.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.body(x), self.scale)
