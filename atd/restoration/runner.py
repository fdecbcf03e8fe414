"""Run a network over an image tile by tile, strip by strip, with precision and memory looked after.

The image stays on the CPU; only tiles go to the network's device. Everything here works on float32 tensors in [0, 1]
and knows nothing of files or image kinds.
"""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from atd.errors import InputError, NotEnoughMemoryError
from atd.models import RestorationModel
from atd.models.layer_events import listening
from atd.restoration import memory
from atd.restoration.channels import AlphaUpsampler, through_network
from atd.restoration.half_copies import half_copy
from atd.restoration.network import (
    HALF,
    channels_of,
    compute_dtype,
    device_of,
    dtype_of,
    layers_of,
    scale_of,
    size_multiple_of,
)
from atd.restoration.options import RestoreOptions, Tile
from atd.restoration.progress import TileCounter
from atd.restoration.tiling import (
    AxisPlan,
    Span,
    discarded,
    join_columns,
    join_rows,
    plan_axis,
    plan_tiles,
    tile_limit,
)
from atd.system import release_cached_memory

logger = logging.getLogger("atd.restoration")


class TileRunner:
    """One call's view of a network: precision, self-ensemble and the check for non-finite values."""

    def __init__(
        self,
        model: nn.Module,
        dtype: torch.dtype | None,
        self_ensemble: bool,
        alpha_upsampler: AlphaUpsampler = "network",
    ) -> None:
        self.model = model
        self.device = device_of(model)
        self.dtype = compute_dtype(model, dtype)
        self.self_ensemble = self_ensemble
        self.alpha_upsampler = alpha_upsampler
        self.scale = scale_of(model)
        self.takes = channels_of(model)
        self.told = False
        half = self.dtype in HALF and dtype_of(model) == torch.float32
        # What tiles go through; `model` itself where autocast or nothing has to be done.
        self.network = (half_copy(model, self.dtype) if half else None) or model
        self.float32_model: nn.Module | None = None

    def __call__(self, batch: Tensor) -> Tensor:
        """(b, c, h, w) float32 on the CPU → (b, c, h·scale, w·scale) float32 on the CPU, for an image of any c."""
        return through_network(self._network, batch.to(self.device), self.takes, self.alpha_upsampler).cpu()

    def _network(self, batch: Tensor) -> Tensor:
        """The network alone, on its device and for its number of channels; finite or an InputError."""
        output = self._ensemble(self.network, batch, self.dtype)
        finite = output.flatten(1).isfinite().all(dim=1)
        if not finite.all() and self.dtype in HALF:
            if not self.told:
                logger.warning(
                    "the network gave non-finite values in %s; such tiles are computed again in float32", self.dtype
                )
                self.told = True
            for index in (i for i in range(len(batch)) if not finite[i]):
                output[index] = self._ensemble(self._full_precision(), batch[index : index + 1], torch.float32)[0]
            finite = output.flatten(1).isfinite().all(dim=1)
        if not finite.all():
            raise InputError("the network gave non-finite values: its weights or the image hold NaN or infinity")
        return output

    def _full_precision(self) -> nn.Module:
        if dtype_of(self.model) == torch.float32:
            return self.model
        if self.float32_model is None:
            self.float32_model = copy.deepcopy(self.model).float()
        return self.float32_model

    def _ensemble(self, model: nn.Module, batch: Tensor, dtype: torch.dtype) -> Tensor:
        if not self.self_ensemble:
            return self._forward(model, batch, dtype)
        total: Tensor | None = None
        for transpose in (False, True):
            for flips in ((), (-1,), (-2,), (-2, -1)):
                view = (batch.mT if transpose else batch).flip(flips)
                output = self._forward(model, view, dtype).flip(flips)
                output = output.mT if transpose else output
                total = output.contiguous() if total is None else total.add_(output)
        assert total is not None
        return total.div_(8)

    def _forward(self, model: nn.Module, batch: Tensor, dtype: torch.dtype) -> Tensor:
        weights = dtype_of(model)
        autocast = _autocast(self.device, dtype, enabled=dtype in HALF and weights == torch.float32)
        # no_grad rather than inference_mode: a network may cache index tensors that it later trains with.
        # Our networks take float32 whatever their weights are, and keep the image itself in full precision.
        image = batch if isinstance(model, RestorationModel) else batch.to(weights)
        with torch.no_grad(), autocast:
            output = model(image)
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise InputError(f"expected the network to return a (b, c, h, w) tensor, got {type(output).__name__}")
        expected = (batch.shape[-2] * self.scale, batch.shape[-1] * self.scale)
        if tuple(output.shape[-2:]) != expected:
            raise InputError(
                f"the network turned {tuple(batch.shape[-2:])} into {tuple(output.shape[-2:])}, but its scale "
                f"{self.scale} means {expected}: set model.scale"
            )
        return output.float()


def _autocast(device: torch.device, dtype: torch.dtype, *, enabled: bool) -> AbstractContextManager[object]:
    """Also switches a caller's autocast off; devices that know none are left alone."""
    known = torch.amp.is_autocast_available(device.type)  # pyright: ignore[reportUnknownMemberType]
    return torch.autocast(device.type, dtype=dtype, enabled=enabled) if known or enabled else nullcontext()


@dataclass(frozen=True)
class Position:
    """Where a run stands: enough to begin again behind the rows that are finished (see `strips`)."""

    tile: int
    """Longest tile side in use."""
    origin: int
    """First input row of the row plan in use."""
    index: int
    """Strip of that plan that was finished last."""


class Strip(NamedTuple):
    """Finished rows of the result."""

    top: int
    """Row of the result that they begin at."""
    rows: Tensor
    """(n, c, rows, w·scale) float32, not clamped."""
    position: Position


@dataclass(frozen=True)
class Source:
    """Images of one size that are read by regions."""

    count: int
    height: int
    width: int
    read: Callable[[int, int, int, int], Tensor]
    """``read(top, bottom, left, right)`` gives (count, c, bottom-top, right-left) float32 in [0, 1]."""

    @classmethod
    def of(cls, images: Tensor) -> Source:
        """(n, c, h, w) float32 in [0, 1] on the CPU."""
        count, _, height, width = images.shape
        return cls(count, height, width, lambda top, bottom, left, right: images[..., top:bottom, left:right])


SMALLEST_TILE = 64
"""What "auto" does not go below: of smaller tiles, half and more is overlap, and little is left to look at."""


def choose_tile(
    runner: TileRunner,
    height: int,
    width: int,
    tile: Tile,
    batch_size: int = 1,
    *,
    count: int = 1,
    reserve: int | None = None,
    longest: int | None = None,
) -> int:
    """Longest tile side in pixels for images of this size; at least their longer side when they stay untiled.

    Args:
        count: images that are restored at once.
        reserve: RAM in bytes that finished rows take beside the tiles; None means the whole of the results.
        longest: a limit for ``tile="auto"`` that has nothing to do with the network.

    Raises:
        NotEnoughMemoryError: "auto" would have to go below `SMALLEST_TILE`, or RAM cannot hold what was asked for.
            Only of networks whose needs have been measured, and before any work.
    """
    multiple = size_multiple_of(runner.model)
    untiled = -(-max(height, width) // multiple) * multiple
    if tile == "auto":
        if runner.device.type != "cpu":
            reserve = 0
        elif reserve is None:
            reserve = count * height * width * runner.scale**2 * 4 * (runner.takes or 3)
        fitting = memory.largest_tile(
            runner.model,
            height,
            width,
            device=runner.device,
            dtype=runner.dtype,
            batch_size=batch_size,
            reserve=reserve,
        )
        fitting = untiled if fitting is None else fitting
        fitting = fitting if longest is None else min(fitting, tile_limit(longest, multiple))
        if fitting < min(SMALLEST_TILE, untiled) and memory.is_measured(runner.model):
            raise NotEnoughMemoryError(
                f"a {width}x{height} image would have to be cut into tiles of {fitting} pixels for the memory that is "
                f"free: close other programs, stream from file to file, restore a part of the image, or set the tile "
                f"size yourself"
            )
        return fitting
    chosen = untiled if tile is None or tile == 0 else min(tile_limit(tile, multiple), untiled)
    if chosen > SMALLEST_TILE and runner.device.type == "cpu" and memory.is_measured(runner.model):
        # A GPU says that it is out of memory, and smaller tiles follow; for want of RAM the process is killed.
        at_once = min(batch_size, count) if chosen == untiled else batch_size
        memory.require_ram_for_tiles(runner.model, min(chosen, height), min(chosen, width), at_once)
    return chosen


def count_tiles(model: nn.Module, count: int, height: int, width: int, options: RestoreOptions) -> int:
    """How many tiles `strips` will compute for `count` images of this size, if memory stays as it is."""
    runner = TileRunner(model, options.dtype, options.self_ensemble)
    tile = choose_tile(runner, height, width, options.tile, options.batch_size, count=count)
    return count * plan_tiles(height, width, tile, options.overlap, size_multiple_of(model)).count


def strips(
    model: nn.Module,
    images: Source,
    options: RestoreOptions,
    counter: TileCounter,
    resume: Position | None = None,
) -> Iterator[Strip]:
    """Yield the results from top to bottom in strips of finished rows, (n, c, rows, width·scale) float32, not clamped.

    Tiles of several images go through the network together. Out of memory means a new plan with smaller tiles for the
    rows that are not finished yet.

    Args:
        images: one image, or several of the same size.
        resume: the position of the last strip that a run before had finished; that strip is computed once more,
            because the next one is faded into it, and yielded again.
    """
    runner = TileRunner(model, options.dtype, options.self_ensemble, options.alpha_upsampler)
    scale, multiple, batch_size, overlap = runner.scale, size_multiple_of(model), options.batch_size, options.overlap
    height, width = images.height, images.width
    if resume is None:
        tile = choose_tile(runner, height, width, options.tile, batch_size, count=images.count)
        if options.tile == "auto" and tile < max(height, width):
            tell_tiles(height, width, tile)
        position = Position(tile, 0, 0)
    else:
        position = resume
    rows, columns = _plan(images, position, overlap, multiple)
    if options.tile == "auto" and len(rows.tiles) == len(columns.tiles) == 1:
        # "auto" has made sure of one whole image, which is worth more than several at a time.
        batch_size = min(batch_size, images.count)
        batch_size = memory.largest_batch(model, height, width, batch_size, device=runner.device, dtype=runner.dtype)
    counter.plan(images.count * len(columns.tiles) * (len(rows.tiles) - position.index))
    tail: Tensor | None = None
    faded = Span(0, 0)
    index = position.index
    while index < len(rows.tiles):
        row = rows.tiles[index]
        try:
            strip = _compute_strip(runner, images, row, columns, batch_size, counter)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            strip = None
        if strip is None:
            # Outside the handler, where no traceback holds the tensors of the failed call any more.
            gc.collect()
            release_cached_memory(runner.device)
            if batch_size > 1:
                batch_size = 1
                counter.plan(images.count * len(columns.tiles) * (len(rows.tiles) - index))
                continue
            smaller = _smaller_tile(rows, columns, multiple, runner.device)
            logger.warning("out of memory on %s: going on with tiles of %d", runner.device, smaller)
            origin = max(faded.start - discarded(min(overlap, smaller // 2)), 0) if tail is not None else row.start
            position = Position(smaller, origin, 0)
            rows, columns = _plan(images, position, overlap, multiple)
            index = 0
            if tail is not None:
                faded = Span(faded.start, min(faded.stop, rows.seam_after(0).start))
            counter.plan(images.count * len(columns.tiles) * len(rows.tiles))
            continue
        fade_in = faded if tail is not None else rows.seam_before(index)
        fade_out = rows.seam_after(index)
        top = fade_in.start if tail is not None else fade_in.stop
        finished_rows = join_rows(tail, strip, row.start, fade_in, fade_out, scale)
        tail, faded = strip[..., fade_out.scaled(scale).within(row.start * scale), :].clone(), fade_out
        if options.strength < 1:
            blend_with_input(finished_rows, images, top, options.strength)
        finished = Strip(top * scale, finished_rows, Position(position.tile, position.origin, index))
        # A generator keeps its variables: nothing here may hold this strip while the next one is computed.
        del strip, finished_rows
        yield finished
        del finished
        index += 1


def blend_with_input(rows: Tensor, images: Source, top: int, strength: float) -> None:
    """Turn rows of the result, in place, into ``(1 - strength) · input + strength · result``, of the clamped result.

    Args:
        rows: (n, c, rows, w) of a network that keeps the size, the first of which is row `top` of `images`.
        images: what the network was given.
        strength: from 0 to 1; at both ends the samples are exactly those of the input and of the result.
    """
    before = images.read(top, top + rows.shape[-2], 0, images.width)
    rows.clamp_(0, 1).lerp_(before, 1 - strength)


def tell_tile_size(model: nn.Module, tile: Tile, overlap: int) -> None:
    """Log what a chosen size of tiles, and their overlap, become where the network cannot take them as they are."""
    if tile in ("auto", None, 0):
        return
    multiple = size_multiple_of(model)
    limit = tile_limit(int(tile), multiple)
    changes: list[str] = []
    if limit != tile:
        changes.append(f"tiles of {tile} pixels become {limit}, as the network takes multiples of {multiple}")
    if overlap > limit // 2:
        changes.append(f"the overlap of {overlap} becomes {limit // 2}, half a tile")
    if changes:
        logger.info("%s", "; ".join(changes))


def tell_tiles(height: int, width: int, tile: int) -> None:
    """Log that an image is cut because of memory."""
    logger.warning(
        "the %dx%d image does not fit into memory at once and is restored in tiles of %d, "
        "which changes the result slightly where a network looks at the whole image",
        width,
        height,
        tile,
    )


def _plan(images: Source, position: Position, overlap: int, multiple: int) -> tuple[AxisPlan, AxisPlan]:
    rows = plan_axis(images.height, position.tile, overlap, multiple, position.origin)
    return rows, plan_axis(images.width, position.tile, overlap, multiple)


def _compute_strip(
    runner: TileRunner, images: Source, row: Span, columns: AxisPlan, batch_size: int, counter: TileCounter
) -> Tensor:
    """One row of tiles of every image, (n, c, row, width·scale)."""
    places = [(span, index) for span in columns.tiles for index in range(images.count)]
    layers = layers_of(runner.model) * (8 if runner.self_ensemble else 1)

    def tiles() -> Iterator[Tensor]:
        """The tiles of all images at one place, (n, c, row, column)."""
        waiting: list[Tensor] = []
        for first in range(0, len(places), batch_size):
            chosen = places[first : first + batch_size]
            regions = (images.read(row.start, row.stop, span.start, span.stop)[index] for span, index in chosen)
            batch = torch.stack(list(regions))
            with listening(counter.listener(len(chosen), layers)):
                waiting += runner(batch).unbind()
            del batch
            while len(waiting) >= images.count:
                # A copy only where there are several: an untiled result is as large as the image's.
                yield torch.stack(waiting[: images.count]) if images.count > 1 else waiting[0][None]
                del waiting[: images.count]
            counter.finish(len(chosen))

    return join_columns(tiles(), columns, runner.scale)


def _smaller_tile(rows: AxisPlan, columns: AxisPlan, multiple: int, device: torch.device) -> int:
    longest = max(rows.size, columns.size)
    smaller = tile_limit(int(longest * 0.7), multiple)
    if smaller >= longest or longest <= 8:
        raise NotEnoughMemoryError(
            f"out of memory on {device} with tiles of {longest}, and smaller ones are not possible"
        )
    return smaller


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or in RAM (where torch raises a plain RuntimeError)."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("out of memory", "DefaultCPUAllocator", "not enough memory")
    )
