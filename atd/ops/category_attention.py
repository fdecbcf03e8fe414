"""Adaptive category attention (AC-MSA): attention among tokens of similar texture, wherever they lie in the image.

CVPR 2024, section 3.3; TPAMI 2026, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from atd.ops.backend import pick
from atd.ops.grouped_attention import attend_groups, attend_rows_, gather_rows
from atd.ops.kernels.limits import refuses
from atd.ops.shapes import check_heads, check_order
from atd.ops.tracing import fixed_layout


def category_attention(
    qkv: Tensor, order: Tensor, inverse: Tensor, group_size: int, num_heads: int, scale: float | Tensor
) -> Tensor:
    """Multi-head softmax attention inside groups of consecutive rows of the category order.

    With ``g = min(n, group_size)`` the sorted rows form ``ceil(n/g)`` groups. When n is not a multiple of g the last
    group is filled by the last ``pad`` sorted rows once more: they act as keys, their outputs are dropped.

    Args:
        qkv: (b, n, 3C), channels ordered (q | k | v), each split into H heads.
        order, inverse: (b, n) int64, from :func:`atd.ops.category_partition`.
        group_size: the published ``category_size``.
        num_heads: H.
        scale: factor of the logits; a tensor of one element where it is learned (CVPR 2024).

    Returns:
        (b, n, C), in the tokens' own places, without the output projection.

    Raises:
        ValueError: the shapes do not fit together.
    """
    check_heads(qkv, num_heads)
    check_order(qkv, order, inverse, group_size)
    refused = refuses(qkv, head=qkv.shape[2] // (3 * num_heads))
    implementation = pick(
        qkv, reference=_reference, fast=_indexed, triton=_triton, native=_in_place, triton_refuses=refused
    )
    return implementation(qkv, order, inverse, group_size, num_heads, scale)


def _reference(
    qkv: Tensor, order: Tensor, inverse: Tensor, group_size: int, num_heads: int, scale: float | Tensor
) -> Tensor:
    tokens = qkv.shape[1]
    size = torch.sym_min(tokens, group_size)
    count = (tokens + size - 1) // size
    place = torch.arange(count * size, device=order.device)
    place = torch.where(place < tokens, place, place - (count * size - tokens))
    rows = torch.unflatten(gather_rows(qkv, order.index_select(1, place)), 1, (count, size))
    q, k, v = fixed_layout(rearrange(rows, "b n g (s k d) -> s b n k g d", s=3, k=num_heads))
    attention = torch.softmax(q @ fixed_layout(k.transpose(-2, -1)) * scale, dim=-1)
    output = fixed_layout(rearrange(attention @ v, "b n k g d -> b n g k d")).flatten(3).flatten(1, 2)
    return gather_rows(output, inverse)


def group_rows(order: Tensor, size: int) -> Tensor:
    """(b, groups·size): the category order (b, n), its last group filled as :func:`category_attention` describes."""
    pad = -order.shape[1] % size
    return torch.cat([order, order[:, order.shape[1] - pad :]], dim=1) if pad else order


def _indexed(
    qkv: Tensor, order: Tensor, inverse: Tensor, group_size: int, num_heads: int, scale: float | Tensor
) -> Tensor:
    batch, tokens, channels = qkv.shape
    size = min(tokens, group_size)
    rows = group_rows(order, size)
    groups = gather_rows(qkv, rows).view(batch, -1, size, channels)
    output = attend_groups(groups, num_heads, scale=scale)
    return gather_rows(output.reshape(batch, rows.shape[1], -1), inverse)


def _in_place(
    qkv: Tensor, order: Tensor, inverse: Tensor, group_size: int, num_heads: int, scale: float | Tensor
) -> Tensor:
    batch, tokens, channels = qkv.shape
    size = min(tokens, group_size)
    rows = group_rows(order, size)
    output = qkv.new_empty(batch, tokens, channels // 3)
    for b in range(batch):
        attend_rows_(output[b], qkv[b], rows[b], size, num_heads, kept=tokens, scale=float(scale))
    return output


def _triton() -> Callable[[Tensor, Tensor, Tensor, int, int, float | Tensor], Tensor]:
    from atd.ops.kernels.category_attention import category_attention

    return category_attention
