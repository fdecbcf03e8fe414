"""Softmax attention inside groups of rows: what window attention and category attention have in common."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from atd.ops.backend import resolve
from atd.ops.native import grouped_attention as native
from atd.ops.tracing import is_exporting

# The backward pass forms its attention maps in pieces of this size: they stay in a CPU's cache, and on a card they are
# large enough to fill it.
_CPU_CHUNK_BYTES = 2 << 20
_CARD_CHUNK_BYTES = 256 << 20


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """``rows[:, index]`` for (b, n, C) rows; ``index`` is (m,), the same for every image, or (b, m).

    ``index_select`` copies whole rows; ``gather`` would look every element up on its own.
    """
    if index.dim() == 1:
        return rows.index_select(1, index)
    batch, count, channels = rows.shape
    if not is_exporting() and batch == 1:  # an exported program serves every batch
        return rows.index_select(1, index[0])
    offsets = torch.arange(batch, device=index.device)[:, None] * count
    flat = (index + offsets).reshape(-1)
    return rows.reshape(batch * count, channels).index_select(0, flat).view(batch, -1, channels)


def attend_groups(
    groups: Tensor, num_heads: int, *, scale: float | Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Multi-head attention inside each group.

    Args:
        groups: (b, groups, g, 3C), contiguous, channels (q | k | v) with heads inside each.
        num_heads: H.
        scale: factor of the logits, ``(C/H)^-0.5`` when None; a tensor of one element may be learned.
        bias: (H, g, g), added to the logits, or None.

    Returns:
        (b, groups, g, C).
    """
    batch, count, size, channels = groups.shape
    rows = groups.view(batch * count, size, channels)
    if isinstance(scale, Tensor):  # fold a learned scale into the queries
        factor = torch.cat([scale.expand(channels // 3), scale.new_ones(1).expand(2 * channels // 3)])
        rows, softmax_scale = rows * factor.to(rows.dtype), 1.0
    else:
        softmax_scale = (channels // (3 * num_heads)) ** -0.5 if scale is None else scale
    if torch.is_grad_enabled() and (rows.requires_grad or (bias is not None and bias.requires_grad)):
        output = _GroupAttention.apply(rows, bias, num_heads, softmax_scale)
    else:
        output = _attend(rows, bias, num_heads, softmax_scale)
    return output.reshape(batch, count, size, channels // 3)


def attend_rows_(
    output: Tensor,
    rows: Tensor,
    index: Tensor,
    size: int,
    num_heads: int,
    *,
    kept: int | None = None,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> None:
    """Attention in groups of ``size`` rows, each result written to its row's own place; without gradients.

    Args:
        output: (n, C), changed in place; rows that the index does not name stay as they are.
        rows: (n, 3C), channels (q | k | v) with heads inside each.
        index: (groups·size,) int64, the rows of each group.
        size: rows in a group.
        num_heads: H.
        kept: results of the first ``kept`` places of the index are written, those of the others dropped; default: all.
        scale: factor of the logits, ``(C/H)^-0.5`` when None.
        bias: (H, size, size), added to the logits, or None.
    """
    kept = len(index) if kept is None else kept
    if resolve(rows) == "native":
        if scale is None:
            scale = float((rows.shape[1] // (3 * num_heads)) ** -0.5)
        native.attend_rows_(output, rows, index, size, num_heads, kept, scale, bias)
    else:
        groups = rows.index_select(0, index).view(1, -1, size, rows.shape[1])
        attended = attend_groups(groups, num_heads, scale=scale, bias=bias).view(len(index), -1)
        output.index_copy_(0, index[:kept], attended[:kept])


def _heads(rows: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v, each a (groups, H, g, d) view of (groups, g, 3C) rows."""
    count, size, channels = rows.shape
    q, k, v = rows.view(count, size, 3, num_heads, channels // (3 * num_heads)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _attend(rows: Tensor, bias: Tensor | None, num_heads: int, scale: float) -> Tensor:
    """(groups, g, C) from (groups, g, 3C): fused, without an attention map in memory."""
    q, k, v = _heads(rows, num_heads)
    output = F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias[None], scale=scale)
    return output.transpose(1, 2).flatten(2)


class _GroupAttention(torch.autograd.Function):
    """:func:`_attend` with a backward pass that recomputes the attention maps piece by piece.

    Autograd's own path for a bias that needs a gradient keeps every map of every layer.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, bias: Tensor | None, num_heads: int, scale: float) -> Tensor:
        # The fused kernel refuses a mask that asks for a gradient, even where none is recorded.
        output = _attend(rows.detach(), None if bias is None else bias.detach(), num_heads, scale)
        ctx.save_for_backward(rows, bias, output)
        ctx.num_heads, ctx.scale = num_heads, scale
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor | None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, bias, output = ctx.saved_tensors
        count, size, channels = rows.shape
        heads, scale = ctx.num_heads, ctx.scale
        width = channels // (3 * heads)
        grad_rows = torch.empty_like(rows)
        # (3, groups, H, g, d) views: the heads of one piece at a time become the batch of plain matrix products.
        parts = rows.view(count, size, 3, heads, width).permute(2, 0, 3, 1, 4)
        grad_parts = grad_rows.view(count, size, 3, heads, width).permute(2, 0, 3, 1, 4)
        grad_heads = grad_output.view(count, size, heads, width).transpose(1, 2)
        row_sums = (grad_output * output).view(count, size, heads, width).sum(-1).transpose(1, 2)[..., None]
        grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))

        for piece in _pieces(count, heads * size * size * rows.element_size(), rows.device):
            q, k, v = (part[piece].reshape(-1, size, width) for part in parts)
            grad = grad_heads[piece].reshape(-1, size, width)
            if bias is None:
                attention = torch.bmm(q * scale, k.transpose(1, 2))
            else:
                attention = torch.baddbmm(bias.repeat(len(q) // heads, 1, 1), q, k.transpose(1, 2), alpha=scale)
            attention = torch.softmax(attention, dim=-1)
            grad_logits = torch.bmm(grad, v.transpose(1, 2))
            grad_logits.sub_(row_sums[piece].reshape(-1, size, 1)).mul_(attention)
            if grad_bias is not None:
                grad_bias += grad_logits.view(-1, heads, size, size).sum(0)
            results = (
                torch.bmm(grad_logits, k) * scale,
                torch.bmm(grad_logits.transpose(1, 2), q) * scale,
                torch.bmm(attention.transpose(1, 2), grad),
            )
            for grad_part, result in zip(grad_parts, results, strict=True):
                grad_part[piece] = result.view(-1, heads, size, width)
        return grad_rows, None if grad_bias is None else grad_bias.to(rows.dtype), None, None


def _pieces(count: int, bytes_each: int, device: torch.device) -> list[slice]:
    """Slices of ``count`` groups whose attention maps fit the chunk size of the device."""
    if torch.compiler.is_compiling():  # a graph must not depend on the number of pieces
        return [slice(None)]
    budget = _CPU_CHUNK_BYTES if device.type == "cpu" else _CARD_CHUNK_BYTES
    step = max(1, budget // bytes_each)
    return [slice(start, start + step) for start in range(0, count, step)]
