"""The depthwise convolution of the feed-forward network with its activation and its shortcut."""

from __future__ import annotations

from torch import Tensor

from atd.ops.native.library import call

SIDES = (3, 5, 7)
LEAST_CHANNELS = 16


def refuses(side: int, channels: int) -> str | None:
    """Why the kernel cannot take a convolution of this side and so many channels; None where it can."""
    if side not in SIDES:
        return f"the convolution is {side} pixels wide; the kernel knows {', '.join(map(str, SIDES))}"
    if channels < LEAST_CHANNELS:
        return f"the convolution has {channels} channels; the kernel needs {LEAST_CHANNELS}"
    return None


def convolve_lines(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """:func:`atd.ops.category_feedforward.convolve_lines`, float32, for what :func:`refuses` does not."""
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
