"""Index tables that depend on the sizes alone: relative positions, and the windows of a shifted grid."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from atd.ops.cache import TableCache
from atd.ops.kernels.limits import FAST_MASK

PUBLISHED_MASK = -100.0
"""Additive mask between regions that were not neighbours before the shift; the fast paths use ``FAST_MASK``."""

# The order of a 1024×1024 grid takes 16 MB, and a network needs one with and one without a shift.
_tables = TableCache(limit=256 << 20)


def clear_caches() -> None:
    """Free the index tables that the ops keep for sizes seen before; they take at most 256 MiB on all devices.

    They are made again when they are needed. Results do not change.
    """
    _tables.clear()


def _traced() -> bool:
    """Whether tables must be built afresh, because they are part of a graph or are tensors without data.

    In a graph sizes may be symbolic. Under a mode such as FakeTensorMode, which counts or traces operations, every new
    tensor is of that mode's own kind, and keeping it would hand it to the next real image.
    """
    return torch.compiler.is_compiling() or type(torch.empty(0)) is not Tensor


def relative_position_index(window: int) -> Tensor:
    """(w², w²) int64: row of the bias table for each pair of places in a window, indexed as in Swin."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    rows = y[:, None] - y[None, :] + window - 1
    columns = x[:, None] - x[None, :] + window - 1
    return rows * (2 * window - 1) + columns


class WindowOrder(NamedTuple):
    """Tokens of an image in window order, the windows sorted by the mask they need.

    After a cyclic shift only the windows of the last row and the last column hold pixels that were not neighbours. The
    windows come as interior, last column, last row, corner, so that three slices need a mask and the rest none.
    """

    order: Tensor
    """(n,) int64: token at each place of the window order."""
    inverse: Tensor
    """(n,) int64: place of each token in the window order."""
    counts: tuple[int, ...]
    """Windows of each kind; without a shift there is one kind only."""


def window_order(height: int, width: int, window: int, shift: int, device: torch.device) -> WindowOrder:
    """The :class:`WindowOrder` of a ``height × width`` grid (multiples of ``window``) rolled by ``−shift``."""
    if _traced():
        return _window_order(height, width, window, shift, device)
    with torch.inference_mode(False):  # a table kept from an inference must serve a training
        key = ("window order", height, width, window, shift, device)
        return _tables.get(key, lambda: _window_order(height, width, window, shift, device))


def _window_order(height: int, width: int, window: int, shift: int, device: torch.device) -> WindowOrder:
    rows, columns = height // window, width // window
    y = (torch.arange(height, device=device) + shift) % height
    x = (torch.arange(width, device=device) + shift) % width
    tokens = (y[:, None] * width + x).view(rows, window, columns, window).transpose(1, 2)  # (rows, columns, w, w)
    if shift == 0:
        order, counts = tokens.reshape(-1), (rows * columns,)
    else:
        kinds = (tokens[:-1, :-1], tokens[:-1, -1], tokens[-1, :-1], tokens[-1, -1])
        order = torch.cat([kind.reshape(-1) for kind in kinds])
        counts = ((rows - 1) * (columns - 1), rows - 1, columns - 1, 1)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(height * width, device=device)
    return WindowOrder(order, inverse, counts)


def shift_masks(window: int, shift: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(w², w²) additive masks of the windows in the last column, in the last row and in the corner."""
    if _traced():
        return _shift_masks(window, shift, device, dtype)
    with torch.inference_mode(False):
        key = ("shift masks", window, shift, device, dtype)
        return _tables.get(key, lambda: _shift_masks(window, shift, device, dtype))


def _shift_masks(window: int, shift: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    wrapped = torch.arange(window, device=device) >= window - shift  # came round from the other side of the image
    apart_y = wrapped[:, None].expand(window, window).reshape(-1)
    apart_x = wrapped[None, :].expand(window, window).reshape(-1)
    column = apart_x[:, None] != apart_x[None, :]
    row = apart_y[:, None] != apart_y[None, :]
    column, row, corner = (mask.to(dtype) * FAST_MASK for mask in (column, row, column | row))
    return column, row, corner
