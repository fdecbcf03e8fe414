# pyright: basic
"""Shifted-window attention through :mod:`atd.ops.kernels.grouped_attention`."""

import torch
from torch import Tensor

from atd.ops.kernels.grouped_attention import Groups, attend, attend_backward
from atd.ops.kernels.launch import autocast


def _groups(qkv: Tensor, height: int, width: int, window: int, shift: int, num_heads: int) -> Groups:
    return Groups(
        size=window**2,
        count=(height // window) * (width // window),
        heads=num_heads,
        scale=(qkv.shape[2] // 3 // num_heads) ** -0.5,
        window=window,
        shift=shift,
        height=height,
        width=width,
    )


def _by_head(table: Tensor) -> Tensor:
    """(H, (2w − 1)²) float32: what one program reads lies together."""
    return table.to(torch.float32).t().contiguous()


@torch.library.custom_op("atd::window_attention", mutates_args=())
def _window_attention(
    qkv: Tensor, bias_table: Tensor, height: int, width: int, window: int, shift: int, num_heads: int
) -> tuple[Tensor, Tensor]:
    """Output (b, n, C) and log-sum-exp of the logits (b, windows, H, w²)."""
    groups = _groups(qkv, height, width, window, shift, num_heads)
    return attend(qkv.contiguous(), None, _by_head(bias_table), None, groups)


@_window_attention.register_fake
def _(qkv, bias_table, height, width, window, shift, num_heads):
    batch, tokens, channels = qkv.shape
    windows = (height // window) * (width // window)
    log_sum = qkv.new_empty(batch, windows, num_heads, window**2, dtype=torch.float32)
    return qkv.new_empty(batch, tokens, channels // 3), log_sum


@torch.library.custom_op("atd::window_attention_backward", mutates_args=())
def _window_attention_backward(
    qkv: Tensor,
    bias_table: Tensor,
    output: Tensor,
    log_sum: Tensor,
    grad_output: Tensor,
    height: int,
    width: int,
    window: int,
    shift: int,
    num_heads: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of qkv and of the bias table."""
    groups = _groups(qkv, height, width, window, shift, num_heads)
    grad_qkv, grad_table, _ = attend_backward(
        qkv.contiguous(), None, _by_head(bias_table), None, output, log_sum, grad_output.contiguous(), groups
    )
    return grad_qkv, grad_table.to(bias_table.dtype)


@_window_attention_backward.register_fake
def _(qkv, bias_table, output, log_sum, grad_output, height, width, window, shift, num_heads):
    return qkv.new_empty(qkv.shape), bias_table.new_empty(bias_table.shape)


def _setup_context(ctx, inputs, output) -> None:
    qkv, bias_table, *ctx.geometry = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(qkv, bias_table, *output)


def _backward(ctx, grad_output, _grad_log_sum):
    gradients = torch.ops.atd.window_attention_backward(*ctx.saved_tensors, grad_output, *ctx.geometry)
    return *gradients, None, None, None, None, None


_window_attention.register_autograd(_backward, setup_context=_setup_context)


def window_attention(
    qkv: Tensor, bias_table: Tensor, grid: tuple[int, int], window: int, shift: int, num_heads: int
) -> Tensor:
    """:func:`atd.ops.window_attention` for what :func:`atd.ops.kernels.limits.refuses` does not."""
    return _window_attention(autocast(qkv), bias_table, *grid, window, shift, num_heads)[0]
