"""Restore images: one function for images in memory, one for files, and the tensor core below both. No state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atd.inference import Callback, Image, Tile, channels_of, check_device, scale_of, strips


def restore_tensor(
    model: nn.Module,
    x: Tensor,
    *,
    tile: Tile = "auto",
    overlap: int = 32,
    batch_size: int = 1,
    self_ensemble: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Run `model` over one image that lies on the CPU, tile by tile.

    Args:
        model: a module (b, c, h, w) → (b, c, scale·h, scale·w); its attributes `scale`, `in_channels` and
            `size_multiple` are respected, absent ones mean 1, any and 1. It is neither moved nor changed.
        x: (c, h, w) float32 in [0, 1].
        tile: ``"auto"`` (untiled when it fits into free memory, else the largest tile that does), None (untiled) or
            the longest side of a tile in input pixels.
        overlap: input pixels that neighbouring tiles share; at most half a tile is used.
        batch_size: tiles per call of the network.
        self_ensemble: average over the eight flips and rotations of each tile.
        device: only checked; a ValueError when the model is elsewhere.
        dtype: precision of the network; None means that of half-precision weights, bfloat16 on a GPU that has it, else
            float32. Give ``torch.float32`` to measure.
        callback: called with a `TileProgress` after every batch of tiles; an exception raised in it cancels the run.

    Returns:
        (c, scale·h, scale·w) float32 on the CPU, not clamped.
    """
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"expected a (c, h, w) image with at least one pixel, got shape {tuple(x.shape)}")
    channels = channels_of(model)
    if channels is not None and x.shape[0] != channels:
        raise ValueError(f"the network takes {channels} channels, the image has {x.shape[0]}")
    check_device(model, device)
    scale = scale_of(model)
    result: Tensor | None = None
    for strip in strips(
        model,
        Image.of(x.to("cpu", torch.float32)),
        tile=tile,
        overlap=overlap,
        batch_size=batch_size,
        self_ensemble=self_ensemble,
        dtype=dtype,
        callback=callback,
    ):
        if result is None:
            if strip.rows.shape[-2] == x.shape[-2] * scale:
                return strip.rows
            result = strip.rows.new_empty((strip.rows.shape[0], x.shape[-2] * scale, x.shape[-1] * scale))
        result[:, strip.top : strip.top + strip.rows.shape[-2]] = strip.rows
    assert result is not None
    return result
