"""Softmax attention inside groups of rows: what window attention and category attention have in common."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """``rows[:, index]`` for (b, n, C) rows; ``index`` is (m,), the same for every image, or (b, m).

    ``index_select`` copies whole rows; ``gather`` would look every element up on its own.
    """
    if index.dim() == 1:
        return rows.index_select(1, index)
    batch, count, channels = rows.shape
    if batch == 1:
        return rows.index_select(1, index[0])
    offsets = count * _arange_like(index, batch)
    return rows.reshape(batch * count, channels).index_select(0, (index + offsets).view(-1)).view(batch, -1, channels)


def _arange_like(index: Tensor, batch: int) -> Tensor:
    return index.new_ones(batch, 1).cumsum(0) - 1


def attend_groups(
    groups: Tensor, num_heads: int, *, scale: float | Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Multi-head attention inside each group.

    Args:
        groups: (b, groups, g, 3C), channels (q | k | v) with heads inside each.
        num_heads: H.
        scale: factor of the logits, ``(C/H)^-0.5`` when None; a tensor of one element may be learned.
        bias: (H, g, g), added to the logits, or None.

    Returns:
        (b, groups, g, C).
    """
    batch, count, size, channels = groups.shape
    heads = groups.view(batch * count, size, 3, num_heads, channels // (3 * num_heads)).permute(2, 0, 3, 1, 4)
    q, k, v = heads[0], heads[1], heads[2]  # each (b·groups, H, g, d)
    if isinstance(scale, Tensor):
        q, scale = q * scale.to(q.dtype), 1.0
    output = F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias[None], scale=scale)
    return output.transpose(1, 2).reshape(batch, count, size, channels // 3)
