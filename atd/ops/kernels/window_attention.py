# pyright: basic
"""Shifted-window attention through :mod:`atd.ops.kernels.grouped_attention`."""

import torch
from torch import Tensor

from atd.ops.kernels.grouped_attention import Groups, attend, attend_backward, spread_bias
from atd.ops.kernels.launch import autocast


def window_groups(qkv: Tensor, grid: tuple[int, int], window: int, shift: int, num_heads: int, scale: float) -> Groups:
    """The windows of a grid as groups of rows of qkv."""
    return Groups(
        size=window**2,
        count=(grid[0] // window) * (grid[1] // window),
        heads=num_heads,
        scale=scale,
        window=window,
        shift=shift,
        height=grid[0],
        width=grid[1],
    )


@torch.library.custom_op("atd::window_attention", mutates_args=())
def _window_attention(
    qkv: Tensor, bias_table: Tensor, height: int, width: int, window: int, shift: int, num_heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Output (b, n, C) and log-sum-exp of the logits to the base 2, (b, windows, H, w²)."""
    groups = window_groups(qkv, (height, width), window, shift, num_heads, scale)
    return attend(qkv.contiguous(), None, spread_bias(bias_table, window, qkv.dtype), None, groups)


@_window_attention.register_fake
def _(qkv, bias_table, height, width, window, shift, num_heads, scale):
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
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of qkv and of the bias table."""
    groups = window_groups(qkv, (height, width), window, shift, num_heads, scale)
    bias = spread_bias(bias_table, window, qkv.dtype)
    grad_qkv, grad_table, _ = attend_backward(
        qkv.contiguous(), None, bias, None, output, log_sum, grad_output.contiguous(), groups
    )
    return grad_qkv, grad_table.to(bias_table.dtype)


@_window_attention_backward.register_fake
def _(qkv, bias_table, output, log_sum, grad_output, height, width, window, shift, num_heads, scale):
    return qkv.new_empty(qkv.shape), bias_table.new_empty(bias_table.shape)


def _setup_context(ctx, inputs, output) -> None:
    qkv, bias_table, *ctx.geometry = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(qkv, bias_table, *output)


def _backward(ctx, grad_output, _grad_log_sum):
    gradients = torch.ops.atd.window_attention_backward(*ctx.saved_tensors, grad_output, *ctx.geometry)
    return *gradients, None, None, None, None, None, None


_window_attention.register_autograd(_backward, setup_context=_setup_context)


def window_attention(
    qkv: Tensor, bias_table: Tensor, grid: tuple[int, int], window: int, shift: int, num_heads: int
) -> Tensor:
    """:func:`atd.ops.window_attention` for what :func:`atd.ops.kernels.limits.refuses` does not."""
    scale = (qkv.shape[2] // (3 * num_heads)) ** -0.5
    return _window_attention(autocast(qkv), bias_table, *grid, window, shift, num_heads, scale)[0]
