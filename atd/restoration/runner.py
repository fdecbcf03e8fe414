"""Run a network over an image tile by tile, strip by strip, with precision and memory looked after.

The image stays on the CPU; only tiles go to the network's device. Everything here works on float32 tensors in [0, 1]
and knows nothing of files or image kinds.
"""

from __future__ import annotations

import copy
import gc
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from atd.models import RestorationModel
from atd.restoration import memory
from atd.restoration.channels import through_network
from atd.restoration.progress import Callback, TileProgress
from atd.restoration.tiling import AxisPlan, Span, discarded, join_columns, join_rows, plan_axis, tile_limit

HALF = (torch.bfloat16, torch.float16)


Tile = int | None | Literal["auto"]


def scale_of(model: nn.Module) -> int:
    """Output pixels per input pixel; 1 for a module that does not say."""
    return int(getattr(model, "scale", 1) or 1)


def channels_of(model: nn.Module) -> int | None:
    """Channels the network takes; None for a module that does not say and then takes what it is given."""
    return getattr(model, "in_channels", None)


def multiple_of(model: nn.Module) -> int:
    """What the sides of a tile should be a multiple of."""
    return int(getattr(model, "size_multiple", 1) or 1)


def device_of(model: nn.Module) -> torch.device:
    """Where the network's weights lie; the CPU for a network without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def dtype_of(model: nn.Module) -> torch.dtype:
    """The floating-point type of the weights; float32 for a network without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def check_device(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """The device of `model`, after refusing a request for another one: a module that somebody holds is never moved."""
    own = device_of(model)
    if device is not None:
        wanted = torch.device(device)
        if wanted.type != own.type or (wanted.index is not None and wanted.index != own.index):
            raise ValueError(
                f"the model is on {own}, but device={str(wanted)!r} was asked for: move it yourself with "
                f"model.to({str(wanted)!r}), or give the model's name instead of a module"
            )
    return own


def compute_dtype(model: nn.Module, dtype: torch.dtype | None) -> torch.dtype:
    """The precision tiles are computed in: as asked; else that of half-precision weights; else bfloat16 on a GPU that
    has it; else that of the weights. float16 is only ever used on request, here or by weights stored so."""
    weights = dtype_of(model)
    if dtype is None:
        if weights == torch.float32 and device_of(model).type == "cuda" and torch.cuda.is_bf16_supported(False):
            return torch.bfloat16
        return weights
    if dtype not in (torch.float32, torch.float64, *HALF):
        raise ValueError(f"expected dtype float32, float64, bfloat16 or float16, got {dtype}")
    if dtype != weights and not (weights == torch.float32 and dtype in HALF):
        raise ValueError(
            f"the model's weights are {weights}, which cannot be computed in {dtype}: "
            f"convert them with model.to({dtype}) or load them so"
        )
    return dtype


class TileRunner:
    """One call's view of a network: precision, self-ensemble and the check for non-finite values."""

    def __init__(self, model: nn.Module, dtype: torch.dtype | None, self_ensemble: bool) -> None:
        self.model = model
        self.device = device_of(model)
        self.dtype = compute_dtype(model, dtype)
        self.self_ensemble = self_ensemble
        self.scale = scale_of(model)
        self.takes = channels_of(model)
        self.warned = False
        self.float32_model: nn.Module | None = None

    def __call__(self, batch: Tensor) -> Tensor:
        """(b, c, h, w) float32 on the CPU → (b, c, h·scale, w·scale) float32 on the CPU, for an image of any c."""
        return through_network(self._network, batch.to(self.device), self.takes).cpu()

    def _network(self, batch: Tensor) -> Tensor:
        """The network alone, on its device and for its number of channels; finite or a ValueError."""
        output = self._ensemble(self.model, batch, self.dtype)
        finite = output.flatten(1).isfinite().all(dim=1)
        if not finite.all() and self.dtype in HALF:
            if not self.warned:
                warnings.warn(
                    f"the network gave non-finite values in {self.dtype}; such tiles are computed again in float32",
                    stacklevel=2,
                )
                self.warned = True
            for index in (~finite).nonzero().flatten().tolist():
                output[index] = self._ensemble(self._full_precision(), batch[index : index + 1], torch.float32)[0]
            finite = output.flatten(1).isfinite().all(dim=1)
        if not finite.all():
            raise ValueError("the network gave non-finite values: its weights or the image hold NaN or infinity")
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
        autocast = torch.autocast(self.device.type, dtype=dtype, enabled=dtype in HALF and weights == torch.float32)
        # no_grad rather than inference_mode: a network may cache index tensors that it later trains with.
        # Our networks take float32 whatever their weights are, and keep the image itself in full precision.
        image = batch if isinstance(model, RestorationModel) else batch.to(weights)
        with torch.no_grad(), autocast:
            output = model(image)
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ValueError(f"expected the network to return a (b, c, h, w) tensor, got {type(output).__name__}")
        expected = (batch.shape[-2] * self.scale, batch.shape[-1] * self.scale)
        if tuple(output.shape[-2:]) != expected:
            raise ValueError(
                f"the network turned {tuple(batch.shape[-2:])} into {tuple(output.shape[-2:])}, but its scale "
                f"{self.scale} means {expected}: set model.scale"
            )
        return output.float()


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
    rows: Tensor
    position: Position


@dataclass(frozen=True)
class Source:
    """An image that is read by regions: `read` gives (c, bottom-top, right-left) float32 in [0, 1]."""

    height: int
    width: int
    read: Callable[[int, int, int, int], Tensor]
    """``read(top, bottom, left, right)``"""

    @classmethod
    def of(cls, x: Tensor) -> Source:
        return cls(x.shape[-2], x.shape[-1], lambda top, bottom, left, right: x[:, top:bottom, left:right])


def choose_tile(
    runner: TileRunner, height: int, width: int, tile: Tile, batch_size: int = 1, longest: int | None = None
) -> int:
    """Longest tile side in pixels for an image; at least the image's longer side when it stays untiled.

    Args:
        longest: a limit for ``tile="auto"`` that has nothing to do with the network.
    """
    multiple = multiple_of(runner.model)
    untiled = -(-max(height, width) // multiple) * multiple
    if tile == "auto":
        # A tiled result is put together in RAM.
        together = height * width * runner.scale**2 * 4 * (runner.takes or 3) if runner.device.type == "cpu" else 0
        fitting = memory.largest_tile(
            runner.model, height, width, device=runner.device, batch_size=batch_size, reserve=together
        )
        fitting = untiled if fitting is None else fitting
        if longest is not None:
            fitting = min(fitting, tile_limit(longest, multiple))
        if fitting < max(height, width):
            warnings.warn(
                f"the {width}x{height} image does not fit into memory at once and is restored in tiles of {fitting}, "
                f"which changes the result slightly where a network looks at the whole image",
                stacklevel=2,
            )
        return fitting
    if tile is None or tile == 0:
        return untiled
    if not isinstance(tile, int) or isinstance(tile, bool) or tile < 1:
        raise ValueError(f'expected tile="auto", None (untiled) or a number of pixels from 1 on, got {tile!r}')
    return min(tile_limit(tile, multiple), untiled)


def strips(
    model: nn.Module,
    image: Source,
    *,
    tile: Tile = "auto",
    overlap: int = 32,
    batch_size: int = 1,
    self_ensemble: bool = False,
    dtype: torch.dtype | None = None,
    callback: Callback | None = None,
    resume: Position | None = None,
) -> Iterator[Strip]:
    """Yield the result from top to bottom in strips of finished rows, (c, rows, width·scale) float32, not clamped.

    Out of memory means a new plan with smaller tiles for the rows that are not finished yet.

    Args:
        resume: the position of the last strip that a run before had finished; that strip is computed once more,
            because the next one is faded into it, and yielded again.
    """
    if batch_size < 1 or not isinstance(batch_size, int):
        raise ValueError(f"expected batch_size >= 1, got {batch_size!r}")
    if overlap < 0 or not isinstance(overlap, int):
        raise ValueError(f"expected overlap >= 0 pixels, got {overlap!r}")
    runner = TileRunner(model, dtype, self_ensemble)
    scale, multiple = runner.scale, multiple_of(model)
    if resume is None:
        position = Position(choose_tile(runner, image.height, image.width, tile, batch_size), 0, 0)
    else:
        position = resume
    rows, columns = _plan(image, position, overlap, multiple)
    clock = _Clock(callback, len(columns.tiles) * (len(rows.tiles) - position.index))
    tail: Tensor | None = None
    faded = Span(0, 0)
    index = position.index
    while index < len(rows.tiles):
        row = rows.tiles[index]
        try:
            strip = _compute_strip(runner, image, row, columns, batch_size, clock)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            strip = None
        if strip is None:
            # Outside the handler, where no traceback holds the tensors of the failed call any more.
            gc.collect()
            if runner.device.type == "cuda":
                torch.cuda.empty_cache()
            if batch_size > 1:
                batch_size = 1
                continue
            smaller = _smaller_tile(rows, columns, multiple, runner.device)
            warnings.warn(f"out of memory on {runner.device}: going on with tiles of {smaller}", stacklevel=2)
            origin = max(faded.start - discarded(min(overlap, smaller // 2)), 0) if tail is not None else row.start
            position = Position(smaller, origin, 0)
            rows, columns = _plan(image, position, overlap, multiple)
            index = 0
            if tail is not None:
                faded = Span(faded.start, min(faded.stop, rows.seam_after(0).start))
            clock.replan(len(columns.tiles) * len(rows.tiles))
            continue
        fade_in = faded if tail is not None else rows.seam_before(index)
        fade_out = rows.seam_after(index)
        top = fade_in.start if tail is not None else fade_in.stop
        rows_done = join_rows(tail, strip, row.start, fade_in, fade_out, scale)
        tail, faded = strip[:, fade_out.scaled(scale).within(row.start * scale)].clone(), fade_out
        finished = Strip(top * scale, rows_done, Position(position.tile, position.origin, index))
        # A generator keeps its variables: nothing here may hold this strip while the next one is computed.
        del strip, rows_done
        yield finished
        del finished
        index += 1


def _plan(image: Source, position: Position, overlap: int, multiple: int) -> tuple[AxisPlan, AxisPlan]:
    rows = plan_axis(image.height, position.tile, overlap, multiple, position.origin)
    return rows, plan_axis(image.width, position.tile, overlap, multiple)


def _compute_strip(
    runner: TileRunner, image: Source, row: Span, columns: AxisPlan, batch_size: int, clock: _Clock
) -> Tensor:
    def tiles() -> Iterator[Tensor]:
        for first in range(0, len(columns.tiles), batch_size):
            spans = columns.tiles[first : first + batch_size]
            batch = torch.stack([image.read(row.start, row.stop, span.start, span.stop) for span in spans])
            yield from runner(batch)
            clock.tick(len(spans))

    return join_columns(tiles(), columns, runner.scale)


def _smaller_tile(rows: AxisPlan, columns: AxisPlan, multiple: int, device: torch.device) -> int:
    longest = max(rows.size, columns.size)
    smaller = tile_limit(int(longest * 0.7), multiple)
    if smaller >= longest or longest <= 8:
        raise MemoryError(f"out of memory on {device} with tiles of {longest}, and smaller ones are not possible")
    return smaller


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or in RAM (where torch raises a plain RuntimeError)."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("out of memory", "DefaultCPUAllocator", "not enough memory")
    )


class _Clock:
    """Counts tiles and tells the callback."""

    def __init__(self, callback: Callback | None, total: int) -> None:
        self.callback, self.total, self.done = callback, total, 0
        self.start = time.monotonic()

    def replan(self, remaining: int) -> None:
        self.total = self.done + remaining

    def tick(self, count: int) -> None:
        self.done += count
        self.total = max(self.total, self.done)
        if self.callback is not None:
            elapsed = time.monotonic() - self.start
            remaining = elapsed / self.done * (self.total - self.done)
            self.callback(TileProgress(self.done, self.total, elapsed, remaining))
