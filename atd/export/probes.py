"""The images on which an exported file is compared."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from atd.images import open_image, samples_to_tensor
from atd.restoration.channels import luma

_PHOTO = Path(__file__).with_name("photo.png")


class Probe(NamedTuple):
    """A batch of images, and what it is."""

    kind: str
    """``"noise"`` or ``"photo"``."""
    image: Tensor
    """(b, c, h, w) float32 in [0, 1]."""


def probes(channels: int, multiple: int, size: tuple[int, int] | None = None) -> list[Probe]:
    """A photo, and noise of thirteen sizes: 1×1, odd, below a window, one, two and more windows, batches.

    Args:
        channels: of the images.
        multiple: of the sides to which the network pads.
        size: height and width, where the file takes no other; then three draws of noise and the photo at this size.
    """
    photo = _photo(channels)
    if size is not None:
        shapes = [(1, *size)] * 3
        photo = F.interpolate(photo, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    else:
        one = multiple
        shapes = [
            (1, 1, 1),
            (1, 1, one),
            (1, 3, 2),
            (1, one - 1, one + 1),
            (1, one, one),
            (1, 2 * one, one),
            (1, 2 * one, 2 * one),
            (1, one, 3 * one),
            (1, 3 * one + 1, max(one - 1, 1)),
            (1, 2 * one + 3, 2 * one - 1),
            (2, one, one + 2),
            (2, 2 * one, 3 * one),
            (3, 2, 1),
        ]
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(batch, channels, *sides, generator=generator) for batch, *sides in shapes]
    return [*(Probe("noise", image) for image in noise), Probe("photo", photo)]


def _photo(channels: int) -> Tensor:
    with open_image(_PHOTO) as file:
        rgb = samples_to_tensor(file.decode().pixels)[None]
    if channels == 3:
        return rgb
    return luma(rgb).expand(-1, channels, -1, -1).contiguous()
