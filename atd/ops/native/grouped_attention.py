"""Attention inside groups of rows that an index names: rows are read and results written in the tokens' own places."""

from __future__ import annotations

import torch
from torch import Tensor

from atd.ops.native.library import call


def attend_rows_(
    output: Tensor, rows: Tensor, index: Tensor, size: int, num_heads: int, kept: int, scale: float, bias: Tensor | None
) -> None:
    """:func:`atd.ops.grouped_attention.attend_rows_`; every tensor but ``index`` is float32, ``output`` contiguous."""
    channels = rows.shape[1] // 3
    if rows.shape[1] % (3 * num_heads) or len(index) % size or output.shape != (len(rows), channels):
        raise ValueError(
            f"rows {tuple(rows.shape)} cannot be attended to by {num_heads} heads in {len(index)}/{size} groups with "
            f"results in {tuple(output.shape)}; expected (n, 3C), C a multiple of the heads, and (n, C)"
        )
    if bias is not None and bias.shape != (num_heads, size, size):
        raise ValueError(f"the bias is {tuple(bias.shape)}; expected ({num_heads}, {size}, {size})")
    lowest, highest = torch.aminmax(index)
    if lowest < 0 or highest >= len(rows):
        raise IndexError(f"rows {int(lowest)} to {int(highest)} were asked for; there are {len(rows)}")
    call(
        "atd_grouped_attention",
        rows.contiguous(),
        index.contiguous(),
        len(index) // size,
        size,
        num_heads,
        channels // num_heads,
        scale,
        None if bias is None else bias.contiguous(),
        output,
        kept,
    )
