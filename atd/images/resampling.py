"""Resizing to a factor that no network has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


def lanczos(x: Tensor, height: int, width: int) -> Tensor:
    """(…, h, w) float32 on the CPU → (…, height, width), by Pillow's antialiased Lanczos filter of three lobes."""
    import torch  # what only reads files starts without it

    if x.shape[-2:] == (height, width):
        return x
    planes = [
        Image.fromarray(plane.numpy(), mode=None).resize((width, height), Image.Resampling.LANCZOS)
        for plane in x.contiguous().reshape(-1, *x.shape[-2:])
    ]
    resized = np.stack([np.asarray(plane) for plane in planes])
    return torch.as_tensor(resized, device="cpu").reshape(*x.shape[:-2], height, width)
