"""Random noise as Real-ESRGAN adds it, of one strength and one seed for each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

NoiseKind = Literal["gaussian", "poisson"]


@dataclass(frozen=True)
class Noise:
    """What is added to an image.

    kind      "gaussian": of standard deviation `strength`/255. "poisson": shot noise of an image with as many photons
              at white as it has levels of brightness (rounded up to a power of two), times `strength`
    strength  see `kind`
    gray      the same in all channels; shot noise is then that of the luminance
    seed      of the random numbers
    """

    kind: NoiseKind
    strength: float
    gray: bool
    seed: int


def add_noise_batch(images: Tensor, noises: Sequence[Noise]) -> Tensor:
    """`images`, (n, c, h, w) float32 in [0, 1], each with its noise, clamped to [0, 1].

    The random numbers are those of torch's generator on the device of the images: CPU and GPU draw other ones.
    """
    return torch.stack([_noisy(image, noise) for image, noise in zip(images, noises, strict=True)])


def _noisy(image: Tensor, noise: Noise) -> Tensor:
    generator = torch.Generator(image.device).manual_seed(noise.seed)
    gray = noise.gray and image.shape[0] == 3
    if noise.kind == "gaussian":
        shape = (1, *image.shape[1:]) if gray else image.shape
        drawn = torch.randn(shape, generator=generator, device=image.device) / 255
    else:
        drawn = _shot_noise(_luminance(image) if gray else image, generator)
    return (image + drawn * noise.strength).clamp(0, 1)


def _shot_noise(image: Tensor, generator: torch.Generator) -> Tensor:
    levels = (image.clamp(0, 1) * 255).round()
    different = int((torch.bincount(levels.flatten().long()) > 0).sum())
    photons = 2 ** (different - 1).bit_length()
    clean = levels / 255
    return torch.poisson(clean * photons, generator=generator) / photons - clean


def _luminance(image: Tensor) -> Tensor:
    weights = torch.tensor((0.2989, 0.587, 0.114), device=image.device)
    return (image * weights[:, None, None]).sum(0, keepdim=True)
