"""The depthwise convolution of the feed-forward network with its activation and its shortcut."""

from __future__ import annotations

from torch import Tensor

from atd.ops.native.library import call

SIDES = (3, 5, 7)
LEAST_CHANNELS = 16


def convolve_lines(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """:func:`atd.ops.category_feedforward.convolve_lines`, float32, for k in SIDES and E >= LEAST_CHANNELS."""
    channels, _, side, _ = weight.shape
    if image.shape[2] != channels or (bias is not None and bias.shape != (channels,)):
        raise ValueError(f"the image has {image.shape[2]} channels, the convolution {channels}")
    lines, width = image.shape[0] - side + 1, image.shape[1]
    output = image.new_empty(lines, width, channels)
    call(
        "atd_depthwise_convolution",
        image.contiguous(),
        weight[:, 0].permute(1, 2, 0).contiguous(),
        None if bias is None else bias.contiguous(),
        output,
        lines,
        width,
        channels,
        side,
    )
    return output
