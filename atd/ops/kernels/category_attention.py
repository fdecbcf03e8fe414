# pyright: basic
"""Category attention through :mod:`atd.ops.kernels.grouped_attention`."""

import torch
from torch import Tensor

from atd.ops.kernels.grouped_attention import Groups, attend, attend_backward
from atd.ops.kernels.launch import autocast, ceil_div


def category_groups(qkv: Tensor, group_size: int, num_heads: int, scale: float) -> Groups:
    """The groups of the category order, of which the last may be filled."""
    tokens = qkv.shape[1]
    size = min(tokens, group_size)
    count = ceil_div(tokens, size)
    return Groups(size=size, count=count, heads=num_heads, scale=scale, pad=count * size - tokens)


@torch.library.custom_op("atd::category_attention", mutates_args=())
def _category_attention(
    qkv: Tensor, order: Tensor, learned_scale: Tensor | None, group_size: int, num_heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Output (b, n, C) and log-sum-exp to the base 2, (b, groups, H, g); ``learned_scale`` goes before ``scale``."""
    groups = category_groups(qkv, group_size, num_heads, scale)
    return attend(qkv.contiguous(), order.contiguous(), None, learned_scale, groups)


@_category_attention.register_fake
def _(qkv, order, learned_scale, group_size, num_heads, scale):
    batch, tokens, channels = qkv.shape
    size = torch.sym_min(tokens, group_size)
    log_sum = qkv.new_empty(batch, (tokens + size - 1) // size, num_heads, size, dtype=torch.float32)
    return qkv.new_empty(batch, tokens, channels // 3), log_sum


@torch.library.custom_op("atd::category_attention_backward", mutates_args=())
def _category_attention_backward(
    qkv: Tensor,
    order: Tensor,
    learned_scale: Tensor | None,
    output: Tensor,
    log_sum: Tensor,
    grad_output: Tensor,
    group_size: int,
    num_heads: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of qkv and of the learned scale (empty where there is none)."""
    groups = category_groups(qkv, group_size, num_heads, scale)
    grad_qkv, _, grad_scale = attend_backward(
        qkv.contiguous(), order.contiguous(), None, learned_scale, output, log_sum, grad_output.contiguous(), groups
    )
    return grad_qkv, grad_scale


@_category_attention_backward.register_fake
def _(qkv, order, learned_scale, output, log_sum, grad_output, group_size, num_heads, scale):
    return qkv.new_empty(qkv.shape), qkv.new_empty(0 if learned_scale is None else 1, dtype=torch.float32)


def _setup_context(ctx, inputs, output) -> None:
    qkv, order, learned_scale, *ctx.options = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(qkv, order, learned_scale, *output)


def _backward(ctx, grad_output, _grad_log_sum):
    learned_scale = ctx.saved_tensors[2]
    grad_qkv, grad_scale = torch.ops.atd.category_attention_backward(*ctx.saved_tensors, grad_output, *ctx.options)
    return grad_qkv, None, None if learned_scale is None else grad_scale, None, None, None


_category_attention.register_autograd(_backward, setup_context=_setup_context)


def category_attention(
    qkv: Tensor, order: Tensor, inverse: Tensor, group_size: int, num_heads: int, scale: float | Tensor
) -> Tensor:
    """:func:`atd.ops.category_attention` for what :func:`atd.ops.kernels.limits.refuses` does not.

    ``inverse`` is not needed: results are written to the tokens' own places.
    """
    learned = scale.to(torch.float32).view(1) if isinstance(scale, Tensor) else None
    fixed = 1.0 if isinstance(scale, Tensor) else scale
    return _category_attention(autocast(qkv), order, learned, group_size, num_heads, fixed)[0]
