"""Shifted-window attention (SW-MSA) with a relative position bias, as in Swin and both ATD papers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from atd.ops.backend import pick
from atd.ops.geometry import PUBLISHED_MASK, WindowOrder, relative_position_index, shift_masks, window_order
from atd.ops.grouped_attention import attend_groups, attend_rows_, gather_rows
from atd.ops.kernels.limits import refuses
from atd.ops.shapes import check_window
from atd.ops.tracing import fixed_layout


def window_attention(
    qkv: Tensor, bias_table: Tensor, grid: tuple[int, int], window: int, shift: int, num_heads: int
) -> Tensor:
    """Multi-head softmax attention inside w×w windows of the grid rolled by ``−shift``.

    The shift is applied always, also when a side of the grid equals the window: dropping it there, as Swin does, is not
    what the ATD networks were trained with. Logits are scaled by ``(C/H)^-0.5``, the bias is added, and so is −100
    between regions that were not neighbours before the shift.

    Args:
        qkv: (b, h·w, 3C), channels ordered (q | k | v), each split into H heads.
        bias_table: ((2·window − 1)², H).
        grid: (h, w), multiples of ``window``.
        window: side of a window.
        shift: 0 ≤ shift < window.
        num_heads: H.

    Returns:
        (b, h·w, C), in the tokens' own places, without the output projection.

    Raises:
        ValueError: the shapes do not fit together.
    """
    check_window(qkv, bias_table, grid, window, shift, num_heads)
    refused = refuses(qkv, head=qkv.shape[2] // (3 * num_heads))
    implementation = pick(
        qkv, reference=_reference, fast=_indexed, triton=_triton, native=_in_place, triton_refuses=refused
    )
    return implementation(qkv, bias_table, grid, window, shift, num_heads)


def window_bias(bias_table: Tensor, window: int) -> Tensor:
    """(H, w², w²): the bias table spread over all pairs of places in a window."""
    index = relative_position_index(window).to(bias_table.device)
    return bias_table.t().contiguous().index_select(1, index.view(-1)).view(-1, window**2, window**2)


def _reference(
    qkv: Tensor, bias_table: Tensor, grid: tuple[int, int], window: int, shift: int, num_heads: int
) -> Tensor:
    height, width = grid
    rows, columns = height // window, width // window
    image = torch.roll(torch.unflatten(qkv, 1, (height, width)), (-shift, -shift), dims=(1, 2))
    windows = rearrange(
        torch.unflatten(torch.unflatten(image, 2, (columns, window)), 1, (rows, window)),
        "b y wy x wx (s k d) -> s b y x k wy wx d",
        s=3,
        k=num_heads,
    )
    q, k, v = fixed_layout(windows).flatten(5, 6).flatten(2, 3)  # (b, windows, heads, w², d) each
    logits = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1) + window_bias(bias_table, window).to(q.dtype)
    if shift > 0:
        logits = logits + _reference_mask(height, width, window, shift, qkv)[:, None]
    output = torch.unflatten(torch.softmax(logits, dim=-1) @ v, 3, (window, window))
    output = torch.unflatten(output, 1, (rows, columns))
    output = fixed_layout(rearrange(output, "b y x k wy wx d -> b y wy x wx k d"))
    output = output.flatten(5, 6).flatten(3, 4).flatten(1, 2)
    return torch.roll(output, (shift, shift), dims=(1, 2)).flatten(1, 2)


def _reference_mask(height: int, width: int, window: int, shift: int, like: Tensor) -> Tensor:
    """(windows, w², w²): −100 between tokens of different regions of the rolled grid."""

    def regions(side: int) -> Tensor:
        """(windows, w): 0 before the last window, 1 in its part that stayed, 2 in the part that came round."""
        place = torch.arange(side, device=like.device)
        region = (place >= side - window).long() + (place >= side - shift).long()
        return torch.unflatten(region, 0, (side // window, window))

    y, x = regions(height), regions(width)
    region = (3 * y[:, None, :, None] + x[None, :, None, :]).flatten(2).flatten(0, 1)
    return (region[:, None, :] != region[:, :, None]).to(like.dtype) * PUBLISHED_MASK


def window_kinds(
    bias_table: Tensor, grid: tuple[int, int], window: int, shift: int, like: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """The windows sorted by the mask they need: the tokens of each kind, window by window, and the term of its logits.

    Returns:
        Pairs of (windows·w²,) int64 and (H, w², w²) in the dtype of ``like``, in the order of
        :func:`atd.ops.geometry.window_order`; kinds without a window are left out.
    """
    return _kinds(window_order(grid[0], grid[1], window, shift, like.device), bias_table, window, shift, like)


def _kinds(
    windows: WindowOrder, bias_table: Tensor, window: int, shift: int, like: Tensor
) -> list[tuple[Tensor, Tensor]]:
    bias = window_bias(bias_table, window).to(like.dtype)
    biases = [bias]
    if shift:
        biases += [bias + mask for mask in shift_masks(window, shift, like.device, like.dtype)]
    kinds = zip(torch.split(windows.order, [count * window**2 for count in windows.counts]), biases, strict=True)
    return [(rows, kind_bias) for rows, kind_bias in kinds if rows.numel()]


def _indexed(qkv: Tensor, bias_table: Tensor, grid: tuple[int, int], window: int, shift: int, num_heads: int) -> Tensor:
    """Gather the rows window by window, attend, gather them back; masks only for the windows that need one."""
    batch, _, channels = qkv.shape
    windows = window_order(grid[0], grid[1], window, shift, qkv.device)
    outputs = [
        attend_groups(gather_rows(qkv, rows).view(batch, -1, window**2, channels), num_heads, bias=bias)
        for rows, bias in _kinds(windows, bias_table, window, shift, qkv)
    ]
    output = torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]
    return gather_rows(output.view(batch, -1, channels // 3), windows.inverse)


def _in_place(
    qkv: Tensor, bias_table: Tensor, grid: tuple[int, int], window: int, shift: int, num_heads: int
) -> Tensor:
    batch, tokens, channels = qkv.shape
    output = qkv.new_empty(batch, tokens, channels // 3)
    for rows, bias in window_kinds(bias_table, grid, window, shift, qkv):
        for b in range(batch):
            attend_rows_(output[b], qkv[b], rows, window**2, num_heads, bias=bias)
    return output


def _triton() -> Callable[[Tensor, Tensor, tuple[int, int], int, int, int], Tensor]:
    from atd.ops.kernels.window_attention import window_attention

    return window_attention
