"""The spatial half of the category-aware feed-forward network.

TPAMI 2026, section 3.4; without category channels it is the convolutional feed-forward network of CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from atd.ops.backend import pick, resolve
from atd.ops.grouped_attention import gather_rows
from atd.ops.kernels.limits import refuses
from atd.ops.native import depthwise_convolution as native
from atd.ops.shapes import check_feedforward


def category_feedforward(
    hidden: Tensor,
    grid: tuple[int, int],
    weight: Tensor,
    bias: Tensor | None,
    features: Tensor | None = None,
    category: Tensor | None = None,
) -> Tensor:
    """``y + GELU(depthwise_conv(y))`` with ``y = concat(GELU(hidden), features[category])``.

    Args:
        hidden: (b, h·w, E), the first linear layer's output before its activation.
        grid: (h, w).
        weight: (E + T, 1, k, k), k odd; the convolution pads with zeros.
        bias: (E + T,) or None.
        features: (b, M, T), channels given to every token of a category; None for T = 0.
        category: (b, h·w) int64, needed with ``features``.

    Returns:
        (b, h·w, E + T).

    Raises:
        ValueError: the shapes do not fit together.
    """
    check_feedforward(hidden, grid, weight, bias, features, category)
    implementation = pick(
        hidden,
        reference=_reference,
        fast=_channels_last,
        triton=_triton,
        native=_in_lines,
        triton_refuses=refuses(hidden),
    )
    return implementation(hidden, grid, weight, bias, features, category)


def _reference(
    hidden: Tensor,
    grid: tuple[int, int],
    weight: Tensor,
    bias: Tensor | None,
    features: Tensor | None,
    category: Tensor | None,
) -> Tensor:
    y = _activated(hidden, features, category)
    image = rearrange(y, "b (h w) c -> b c h w", h=grid[0], w=grid[1]).contiguous()
    image = F.gelu(F.conv2d(image, weight, bias, padding=_margin(weight), groups=image.shape[1]))
    return y + rearrange(image, "b c h w -> b (h w) c")


def _activated(hidden: Tensor, features: Tensor | None, category: Tensor | None) -> Tensor:
    """(b, h·w, E + T): what the convolution takes."""
    y = F.gelu(hidden)
    if features is None or category is None:
        return y
    return torch.cat([y, gather_rows(features, category).to(y.dtype)], dim=-1)


def _margin(weight: Tensor) -> int:
    """Pixels that a k×k kernel reaches to each side; a plain number also while torch.jit traces."""
    return int(weight.shape[-1]) // 2


def _channels_last(
    hidden: Tensor,
    grid: tuple[int, int],
    weight: Tensor,
    bias: Tensor | None,
    features: Tensor | None,
    category: Tensor | None,
) -> Tensor:
    """The tokens already are a channels-last image: no transposed copy is made on either side of the convolution."""
    y = _activated(hidden, features, category)
    batch, tokens, channels = y.shape
    image = y.view(batch, *grid, channels).permute(0, 3, 1, 2)
    image = F.conv2d(image, weight, bias, padding=_margin(weight), groups=channels)
    return y + F.gelu(image.permute(0, 2, 3, 1).reshape(batch, tokens, channels))


def _in_lines(
    hidden: Tensor,
    grid: tuple[int, int],
    weight: Tensor,
    bias: Tensor | None,
    features: Tensor | None,
    category: Tensor | None,
) -> Tensor:
    batch, tokens, narrow = hidden.shape
    channels, margin = len(weight), _margin(weight)
    output = hidden.new_empty(batch, tokens, channels)
    for b in range(batch):
        image = hidden.new_zeros(grid[0] + 2 * margin, grid[1], channels)
        y = image[margin : margin + grid[0]].view(tokens, channels)
        y[:, :narrow] = F.gelu(hidden[b])
        if features is not None and category is not None:
            y[:, narrow:] = features[b].index_select(0, category[b])
        output[b] = convolve_lines(image, weight, bias).view(tokens, channels)
    return output


def convolve_lines(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``y + GELU(depthwise_conv(y))`` for some lines of an image; without gradients.

    Args:
        image: (l + k − 1, w, E), contiguous: the l lines asked for, with (k − 1)/2 more above and below, which are zero
            outside the whole image. Left and right the convolution pads with zeros.
        weight: (E, 1, k, k), k odd.
        bias: (E,) or None.

    Returns:
        (l, w, E), contiguous.
    """
    channels, _, side, _ = weight.shape
    if resolve(image) == "native" and native.refuses(side, channels) is None:
        return native.convolve_lines(image, weight, bias)
    margin = side // 2
    output = F.conv2d(image[None].permute(0, 3, 1, 2), weight, bias, padding=(0, margin), groups=channels)
    output = output.permute(0, 2, 3, 1)[0].contiguous()
    torch.ops.aten.gelu.out(output, out=output)
    return output.add_(image[margin : len(image) - margin])


def _triton() -> Callable[[Tensor, tuple[int, int], Tensor, Tensor | None, Tensor | None, Tensor | None], Tensor]:
    from atd.ops.kernels.category_feedforward import category_feedforward

    return category_feedforward
