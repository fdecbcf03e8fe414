"""Where the tiles of an image lie and how their results are joined: pure functions, no network, no device.

Along each axis the tiles are equally long, a multiple of what the network asks for, and evenly spread. Two
neighbours share at least ``overlap`` input pixels. A quarter of the overlap at each tile's rim is discarded (a
convolution whose radius fits into it cannot see the cut) and the half between is cross-faded with a half-sine
ramp. Cross-fading is written ``a + w (b - a)``, so that tiles which agree are joined without any rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """A half-open range of input pixels along one axis."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many pixels it holds."""
        return self.stop - self.start

    def scaled(self, scale: int) -> Span:
        """The pixels of the result that belong to it."""
        return Span(self.start * scale, self.stop * scale)

    def within(self, origin: int) -> slice:
        """The range as a slice of something that begins at `origin`."""
        return slice(self.start - origin, self.stop - origin)


@dataclass(frozen=True)
class AxisPlan:
    """Tiles of one axis, in input pixels. ``seams[i]`` is where tile ``i`` is faded into tile ``i + 1``."""

    tiles: tuple[Span, ...]
    seams: tuple[Span, ...]

    @property
    def size(self) -> int:
        """Length of every tile."""
        return self.tiles[0].size

    def seam_before(self, index: int) -> Span:
        """The range in which tile `index` is faded in; empty at the first tile."""
        return self.seams[index - 1] if index else Span(self.tiles[0].start, self.tiles[0].start)

    def seam_after(self, index: int) -> Span:
        """The range in which tile `index` is faded out; empty at the last tile."""
        return self.seams[index] if index < len(self.seams) else Span(self.tiles[-1].stop, self.tiles[-1].stop)


@dataclass(frozen=True)
class TilePlan:
    """The grid of tiles of one image."""

    rows: AxisPlan
    columns: AxisPlan

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return len(self.rows.tiles) * len(self.columns.tiles)


def discarded(overlap: int) -> int:
    """Input pixels at a tile's rim whose results are never used: the radius a convolution may have to stay exact."""
    return overlap // 4


def tile_limit(tile: int, multiple: int = 1) -> int:
    """The largest tile length not above `tile` that is a multiple of `multiple`, and at least one multiple."""
    return max(tile // multiple, 1) * multiple


def plan_axis(length: int, tile: int, overlap: int, multiple: int = 1, origin: int = 0) -> AxisPlan:
    """Cover the pixels `origin` … `length` - 1 with tiles.

    Args:
        length: pixels of the image along this axis.
        tile: the longest tile allowed; it is rounded down to a multiple of `multiple`.
        overlap: input pixels that neighbours share at least; more than half a tile is cut to half a tile, which keeps
            any pixel in at most two cross-faded tiles.
        multiple: tiles are as long as a multiple of this, unless one tile covers everything.
        origin: the first pixel to cover, when the pixels before it are already done.
    """
    if length <= origin or origin < 0:
        raise ValueError(f"nothing to cover: length {length}, origin {origin}")
    if tile < 1 or overlap < 0 or multiple < 1:
        raise ValueError(f"expected tile >= 1, overlap >= 0 and multiple >= 1, got {tile}, {overlap} and {multiple}")
    limit = tile_limit(tile, multiple)
    extent = length - origin
    if extent <= limit:
        return AxisPlan((Span(origin, length),), ())
    overlap = min(overlap, limit // 2)
    count = math.ceil((extent - overlap) / (limit - overlap))
    size = math.ceil(math.ceil((extent + (count - 1) * overlap) / count) / multiple) * multiple
    starts = [origin + index * (extent - size) // (count - 1) for index in range(count)]
    tiles = tuple(Span(start, start + size) for start in starts)
    fade = overlap - 2 * discarded(overlap)
    seams: list[Span] = []
    for before, after in itertools.pairwise(tiles):
        start = after.start + (before.stop - after.start - fade) // 2
        # Rounding can make two seams of short tiles touch; the later one then begins where the earlier one ends.
        seams.append(Span(max(start, seams[-1].stop if seams else start), start + fade))
    return AxisPlan(tiles, tuple(seams))


def plan_tiles(height: int, width: int, tile: int | None, overlap: int, multiple: int = 1) -> TilePlan:
    """Plan the tiles of an image; ``tile=None`` means one tile, the whole image."""
    if tile is None:
        tile = math.ceil(max(height, width) / multiple) * multiple
    return TilePlan(rows=plan_axis(height, tile, overlap, multiple), columns=plan_axis(width, tile, overlap, multiple))


def half_sine(length: int) -> Tensor:
    """Weights of the later of two tiles across a seam of `length` pixels: sin² from 0 to 1 at pixel centres."""
    return torch.sin((torch.arange(length, dtype=torch.float32) + 0.5) * (math.pi / 2 / max(length, 1))).square()


def crossfade(before: Tensor, after: Tensor, dim: int) -> Tensor:
    """Fade `before` into `after` along `dim`; equal values come out bit for bit."""
    shape = [1] * before.ndim
    shape[dim] = before.shape[dim]
    return before + half_sine(before.shape[dim]).to(before).reshape(shape) * (after - before)


def join_columns(tiles: Iterable[Tensor], columns: AxisPlan, scale: int) -> Tensor:
    """Join the results of one row of tiles into a strip, holding no more than two of them beside it.

    Args:
        tiles: (c, h, tile width·scale) each, from left to right.

    Returns:
        (c, h, image width·scale).
    """
    left = columns.tiles[0].start * scale
    width = columns.tiles[-1].stop * scale - left
    strip: Tensor | None = None
    before: Tensor | None = None
    for index, tile in enumerate(tiles):
        if strip is None:
            strip = tile.new_empty((*tile.shape[:-1], width))
        origin = columns.tiles[index].start * scale
        fade_in, fade_out = columns.seam_before(index).scaled(scale), columns.seam_after(index).scaled(scale)
        own = Span(fade_in.stop, fade_out.start)
        strip[..., own.within(left)] = tile[..., own.within(origin)]
        if before is not None:
            strip[..., fade_in.within(left)] = crossfade(before, tile[..., fade_in.within(origin)], dim=-1)
        before = tile[..., fade_out.within(origin)].clone()
    if strip is None:
        raise ValueError("no tiles to join")
    return strip


def join_rows(tail: Tensor | None, strip: Tensor, start: int, fade_in: Span, fade_out: Span, scale: int) -> Tensor:
    """The finished rows that `strip` adds to the image: those it is faded in over, changed in place, and its own.

    Args:
        tail: rows `fade_in` of the strip before, (c, rows·scale, width); None at the top of the image.
        strip: (c, tile height·scale, width), whose first row is input row `start`.
        fade_in: the range shared with the strip before. fade_out: the range shared with the strip after.

    Returns:
        Rows ``fade_in.start·scale`` … ``fade_out.start·scale`` of the result, a view of `strip`; without `tail` they
        begin at ``fade_in.stop·scale``.
    """
    origin = start * scale
    first = fade_in.stop
    if tail is not None:
        head = strip[..., fade_in.scaled(scale).within(origin), :]
        head.copy_(crossfade(tail[..., : head.shape[-2], :], head, dim=-2))
        first = fade_in.start
    return strip[..., Span(first, fade_out.start).scaled(scale).within(origin), :]
