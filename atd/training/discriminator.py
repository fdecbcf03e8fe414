"""The discriminator of Real-ESRGAN, and what it and a generator lose (Wang et al., ICCVW 2021, section 3.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, leaky_relu, pad, relu
from torch.nn.utils.parametrizations import spectral_norm

AdversarialLoss = Literal["vanilla", "hinge"]
"""Cross entropy of the logits (Goodfellow et al., 2014), or the hinge loss (Lim and Ye, 2017)."""


class UNetDiscriminator(nn.Module):
    """A U-Net with spectral normalisation: for every pixel a logit that says how real it looks.

    Args:
        in_channels: of the images.
        channels: of its first features; deeper ones have up to eight times as many.
    """

    def __init__(self, in_channels: int = 3, channels: int = 64) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.down = nn.ModuleList(_normalised(channels * 2**i, channels * 2 ** (i + 1), 4, 2) for i in range(3))
        self.up = nn.ModuleList(_normalised(channels * 2 ** (i + 1), channels * 2**i, 3, 1) for i in (2, 1, 0))
        self.last = nn.ModuleList(_normalised(channels, channels, 3, 1) for _ in range(2))
        self.logits = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) in [0, 1] → logits (n, 1, h, w)."""
        height, width = images.shape[2:]
        x = pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
        x = leaky_relu(self.first(x), 0.2)
        skipped: list[Tensor] = []
        for layer in self.down:
            skipped.append(x)
            x = leaky_relu(layer(x), 0.2)
        for layer in self.up:
            x = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = leaky_relu(layer(x), 0.2) + skipped.pop()
        for layer in self.last:
            x = leaky_relu(layer(x), 0.2)
        return self.logits(x)[..., :height, :width]


def _normalised(before: int, after: int, size: int, stride: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(before, after, size, stride, 1, bias=False))


def generator_loss(fake: Tensor, kind: AdversarialLoss) -> Tensor:
    """What the generator loses where the logits of its images say that they are not real."""
    if kind == "hinge":
        return -fake.mean()
    return binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


def discriminator_loss(real: Tensor, fake: Tensor, kind: AdversarialLoss) -> Tensor:
    """What the discriminator loses on real images and on those of the generator, the sum of both means."""
    if kind == "hinge":
        return relu(1 - real).mean() + relu(1 + fake).mean()
    on_real = binary_cross_entropy_with_logits(real, torch.ones_like(real))
    return on_real + binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
