"""How an image of any number of channels goes through a network that takes one number of channels.

Works on tiles: (b, c, h, w) float32 in [0, 1]; c is 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from atd.errors import InputError

Network = Callable[[Tensor], Tensor]
AlphaUpsampler = Literal["network", "bicubic"]
ALPHA_UPSAMPLERS: tuple[str, ...] = get_args(AlphaUpsampler)
"""What enlarges an alpha channel."""


def luma(rgb: Tensor) -> Tensor:
    """(…, 3, h, w) → (…, 1, h, w): full-range Y of ITU-R BT.601."""
    red, green, blue = (rgb.narrow(-3, channel, 1) for channel in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def bleed(colour: Tensor, alpha: Tensor) -> Tensor:
    """Give pixels of zero alpha the colour of their surroundings, so that no hidden colour shines through an edge.

    Args:
        colour: (b, c, h, w). alpha: (b, 1, h, w).

    Returns:
        `colour`, unchanged where alpha > 0; elsewhere averages of visible pixels, the nearest ones counting most
        (a pyramid of visible-pixel means). Unchanged altogether where nothing is visible.
    """
    visible = (alpha > 0).to(colour)
    if bool(visible.all()):
        return colour
    filled = _fill(colour * visible, visible)
    anything = visible.amax(dim=(-2, -1), keepdim=True) > 0
    return torch.where((visible > 0) | ~anything, colour, filled)


def _fill(weighted: Tensor, weight: Tensor) -> Tensor:
    mean = weighted / weight.clamp_min(torch.finfo(weight.dtype).tiny)
    if max(weight.shape[-2:]) == 1 or bool((weight > 0).all()):
        return mean
    coarse = _fill(_halve(weighted), _halve(weight))
    return torch.where(weight > 0, mean, F.interpolate(coarse, size=weight.shape[-2:], mode="bilinear"))


def _halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def through_network(network: Network, x: Tensor, takes: int | None, alpha_upsampler: str = "network") -> Tensor:
    """Send an image through `network`, which takes `takes` channels (None: any).

    Gray through a colour network is replicated and its luma taken. Colour through a gray network: the luma is
    restored, chroma kept (enlarged bicubically where the network enlarges). Alpha is separated, colour bled under
    transparent pixels; alpha is enlarged by the same network, or bicubically as `alpha_upsampler` says, and kept bit
    for bit by a network of scale 1 and where its surroundings are constant.
    """
    channels = x.shape[1]
    if channels == takes or (takes is None and channels in (1, 3)):
        return network(x)
    if channels in (2, 4):
        colour, alpha = x[:, :-1], x[:, -1:]
        restored = through_network(network, bleed(colour, alpha), takes)
        by_network = network if alpha_upsampler == "network" else None
        return torch.cat((restored, _enlarge_alpha(by_network, alpha, takes or channels - 1, restored)), dim=1)
    if channels == 1 and takes == 3:
        return luma(network(x.expand(-1, 3, -1, -1).contiguous()))
    if channels == 3 and takes == 1:
        gray = luma(x)
        restored = network(gray)
        size = restored.shape[-2:]
        # Cb and Cr depend on B - Y and R - Y only: the same change of all three channels keeps them.
        return _bicubic(x, size) + (restored - _bicubic(gray, size))
    raise InputError(f"the network takes {takes} channels, which an image of {channels} channels cannot be turned into")


def _bicubic(x: Tensor, size: torch.Size) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bicubic", align_corners=False)


def _enlarge_alpha(network: Network | None, alpha: Tensor, takes: int, restored: Tensor) -> Tensor:
    """To the size of `restored`, by `network` or, without one, by a bicubic filter."""
    size = restored.shape[-2:]
    if alpha.shape[-2:] == size:
        return alpha
    nearest = F.interpolate(alpha, size=size, mode="nearest")
    rim = F.pad(alpha, (1, 1, 1, 1), mode="replicate")
    varies = F.max_pool2d(rim, 3, stride=1) != -F.max_pool2d(-rim, 3, stride=1)
    if not bool(varies.any()):
        return nearest
    enlarged = through_network(network, alpha, takes) if network and takes in (1, 3) else _bicubic(alpha, size)
    return torch.where(F.interpolate(varies.to(alpha), size=size, mode="nearest") > 0, enlarged, nearest)
