"""The arguments of `restore` that concern the computation, and the size of what it gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from atd.restoration.progress import Callback
from atd.restoration.runner import Tile


@dataclass(frozen=True)
class Settings:
    """The arguments of `restore` that concern the computation."""

    tile: Tile = "auto"
    overlap: int = 32
    batch_size: int = 1
    outscale: float | None = None
    self_ensemble: bool = False
    dtype: torch.dtype | None = None
    callback: Callback | None = None


def output_size(height: int, width: int, scale: int, outscale: float | None) -> tuple[int, int]:
    """Height and width of the result."""
    factor = scale if outscale is None else outscale
    if not 0 < factor < float("inf"):
        raise ValueError(f"expected outscale > 0, got {outscale}")
    return max(round(height * factor), 1), max(round(width * factor), 1)


def passes(scale: int, outscale: float | None) -> int:
    """How often the network is applied: until its scales multiply to `outscale`, and at least once."""
    count = 1
    while outscale is not None and scale > 1 and scale**count < outscale:
        count += 1
    return count


def ram_needed(shape: tuple[int, ...], scale: int, outscale: float | None) -> int:
    """Bytes that restoring an (h, w, c) picture in memory takes beside the network's own."""
    height, width, channels = shape
    largest = max(scale ** passes(scale, outscale), outscale or 0)
    # The float32 result, its rounded copy, what the tiler holds in between, and the input.
    return int(height * width * channels * 4 * (largest**2 * 2.5 + 2))
