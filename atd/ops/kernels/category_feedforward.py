# pyright: basic
"""Category-aware feed-forward network: GELU, category channels, depthwise convolution, GELU and residual in one op.

Two launches. The first writes ``y = concat(GELU(hidden), features[category])`` with rows of a multiple of 16 bytes, so
that odd channel counts load in whole vectors; the second convolves it where it lies, channels last, from the L1. One
launch would have to evaluate the error function once per tap: 25 or 49 times for each value instead of once, which
costs more than the two passes over ``y`` that it saves.

Backward, ``y`` and the convolution are computed again; nothing but the inputs is kept.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportIndexIssue=false
# Inside @triton.jit Python's types mean something else.

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from atd.ops.kernels.launch import autocast, ceil_div, device_of, power_of_two

_TILE = 8  # side of the square of pixels that a program convolves
_WEIGHT_PIXELS = 16  # pixels that a program of the weight gradient takes at a time


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _gelu_slope(x):
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476)) + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)


@triton.jit
def _activate(
    hidden, features, category, y, tokens, entries, total,
    HIDDEN: tl.constexpr, EXTRA: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """y[row] = (GELU(hidden[row]), features[batch, category[row]], zeros up to STRIDE)."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    valid = row < total
    value = tl.load(hidden + row[:, None] * HIDDEN + c, mask=valid[:, None] & (c < HIDDEN), other=0.0)
    value = _gelu(value.to(tl.float32))
    if EXTRA > 0:
        entry = row // tokens * entries + tl.load(category + row, mask=valid, other=0)
        extra = c - HIDDEN
        inside = valid[:, None] & (extra >= 0) & (extra < EXTRA)
        chosen = tl.load(features + entry[:, None] * EXTRA + extra, mask=inside, other=0.0)
        value = tl.where(extra >= 0, chosen.to(tl.float32), value)
    tl.store(y + row[:, None] * STRIDE + c, value.to(y.dtype.element_ty), mask=valid[:, None] & (c < STRIDE))


@triton.jit
def _tile(height, width, CHANNELS: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr):
    """Row of each pixel of this program's tile, its y and x, whether it is in the image, and the channels."""
    channel_blocks = tl.cdiv(CHANNELS, BLOCK_C)
    tile = tl.program_id(0) // channel_blocks
    c = tl.program_id(0) % channel_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    across = tl.cdiv(width, TILE)
    pixel = tl.arange(0, TILE * TILE)
    py = tile // across * TILE + pixel // TILE
    px = tile % across * TILE + pixel % TILE
    row = tl.program_id(1).to(tl.int64) * height * width + py.to(tl.int64) * width + px
    return row, py, px, (py < height) & (px < width), c


@triton.jit
def _convolve(
    source, weight, row, py, px, height, width, c,
    CHANNELS: tl.constexpr, STRIDE: tl.constexpr, SIDE: tl.constexpr, FLIP: tl.constexpr,
    PIXELS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Depthwise convolution, zero padding; ``FLIP`` turns it into its transpose. ``weight`` is (SIDE², CHANNELS)."""
    RADIUS: tl.constexpr = SIDE // 2
    total = tl.zeros((PIXELS, BLOCK_C), tl.float32)
    # A loop over rows and no more: with all taps unrolled the compiler holds too many loads in flight and spills.
    for tap_y in range(SIDE):
        y = py + (tap_y - RADIUS)
        row_inside = (y >= 0) & (y < height)
        first = row + (tap_y - RADIUS) * width - RADIUS
        for tap_x in tl.static_range(SIDE):  # pyright: ignore[reportGeneralTypeIssues]
            x = px + (tap_x - RADIUS)
            inside = row_inside & (x >= 0) & (x < width)
            address = source + (first + tap_x)[:, None] * STRIDE + c
            value = tl.load(address, mask=inside[:, None] & (c < STRIDE), other=0.0)
            tap = tap_y * SIDE + tap_x
            if FLIP:
                tap = SIDE * SIDE - 1 - tap
            factor = tl.load(weight + tap * CHANNELS + c, mask=c < CHANNELS, other=0.0)
            total += value.to(tl.float32) * factor.to(tl.float32)[None, :]
    return total


@triton.jit
def _forward(
    y, weight, bias, output, height, width,
    CHANNELS: tl.constexpr, STRIDE: tl.constexpr, SIDE: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row, py, px, inside, c = _tile(height, width, CHANNELS, TILE, BLOCK_C)
    mask = inside[:, None] & (c < CHANNELS)
    total = _convolve(
        y, weight, row, py, px, height, width, c, CHANNELS, STRIDE, SIDE, False, TILE * TILE, BLOCK_C
    )  # fmt: skip
    if bias is not None:
        total += tl.load(bias + c, mask=c < CHANNELS, other=0.0).to(tl.float32)[None, :]
    centre = tl.load(y + row[:, None] * STRIDE + c, mask=inside[:, None] & (c < STRIDE), other=0.0)
    result = centre.to(tl.float32) + _gelu(total)
    tl.store(output + row[:, None] * CHANNELS + c, result.to(output.dtype.element_ty), mask=mask)


@triton.jit
def _convolution_backward(
    y, weight, bias, grad_output, grad_convolution, height, width,
    CHANNELS: tl.constexpr, STRIDE: tl.constexpr, SIDE: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradient of the convolution's result, in rows of STRIDE with zeros at their ends."""
    row, py, px, inside, c = _tile(height, width, CHANNELS, TILE, BLOCK_C)
    mask = inside[:, None] & (c < CHANNELS)
    total = _convolve(
        y, weight, row, py, px, height, width, c, CHANNELS, STRIDE, SIDE, False, TILE * TILE, BLOCK_C
    )  # fmt: skip
    if bias is not None:
        total += tl.load(bias + c, mask=c < CHANNELS, other=0.0).to(tl.float32)[None, :]
    g = tl.load(grad_output + row[:, None] * CHANNELS + c, mask=mask, other=0.0).to(tl.float32)
    result = (g * _gelu_slope(total)).to(grad_convolution.dtype.element_ty)
    tl.store(grad_convolution + row[:, None] * STRIDE + c, result, mask=inside[:, None] & (c < STRIDE))


@triton.jit
def _input_backward(
    hidden, weight, grad_output, grad_convolution, grad_hidden, grad_chosen, height, width,
    HIDDEN: tl.constexpr, EXTRA: tl.constexpr,
    CHANNELS: tl.constexpr, STRIDE: tl.constexpr, SIDE: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradients of ``hidden`` and of every token's category channels."""
    row, py, px, inside, c = _tile(height, width, CHANNELS, TILE, BLOCK_C)
    total = _convolve(
        grad_convolution, weight, row, py, px, height, width, c, CHANNELS, STRIDE, SIDE, True, TILE * TILE, BLOCK_C
    )  # fmt: skip
    mask = inside[:, None] & (c < CHANNELS)
    total += tl.load(grad_output + row[:, None] * CHANNELS + c, mask=mask, other=0.0).to(tl.float32)
    of_hidden = inside[:, None] & (c < HIDDEN)
    x = tl.load(hidden + row[:, None] * HIDDEN + c, mask=of_hidden, other=0.0).to(tl.float32)
    result = (total * _gelu_slope(x)).to(grad_hidden.dtype.element_ty)
    tl.store(grad_hidden + row[:, None] * HIDDEN + c, result, mask=of_hidden)
    if EXTRA > 0:
        tl.store(grad_chosen + row[:, None] * EXTRA + c - HIDDEN, total, mask=mask & (c >= HIDDEN))


@triton.jit
def _weight_backward(
    y, grad_convolution, grad_weight, height, width, total, share,
    CHANNELS: tl.constexpr, STRIDE: tl.constexpr, SIDE: tl.constexpr, BLOCK_X: tl.constexpr,
    PIXELS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One row of taps of the weight gradient over ``share`` pixels; partial sums as (splits, SIDE, SIDE, CHANNELS).

    Every thread adds up its own pixels; threads meet once, after the last of them.
    """
    RADIUS: tl.constexpr = SIDE // 2
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    tap_y, split = tl.program_id(1), tl.program_id(2)
    tap_x = tl.arange(0, BLOCK_X)
    grad = tl.zeros((BLOCK_X, PIXELS, BLOCK_C), tl.float32)
    for offset in range(0, share, PIXELS):
        row = split * share + offset + tl.arange(0, PIXELS)  # of 32 bits, in which divisions are cheap
        valid = row < total
        wide = row.to(tl.int64)
        g = tl.load(grad_convolution + wide[:, None] * STRIDE + c, mask=valid[:, None] & (c < STRIDE), other=0.0)
        py = row // width % height + tap_y - RADIUS
        px = (row % width)[None, :] + tap_x[:, None] - RADIUS  # (taps, pixels)
        inside = (valid & (py >= 0) & (py < height))[None, :] & (px >= 0) & (px < width) & (tap_x < SIDE)[:, None]
        other = wide[None, :] + (tap_y - RADIUS) * width + tap_x[:, None] - RADIUS
        value = tl.load(y + other[:, :, None] * STRIDE + c, mask=inside[:, :, None] & (c < STRIDE), other=0.0)
        grad += value.to(tl.float32) * g.to(tl.float32)[None, :, :]
    address = grad_weight + ((split.to(tl.int64) * SIDE + tap_y) * SIDE + tap_x[:, None]) * CHANNELS + c
    tl.store(address, tl.sum(grad, axis=1), mask=(tap_x < SIDE)[:, None] & (c < CHANNELS))


def _activated(hidden: Tensor, features: Tensor | None, category: Tensor | None) -> Tensor:
    """y (b·n, STRIDE); STRIDE rounds the channels up to whole vectors of 16 bytes."""
    batch, tokens, channels = hidden.shape
    extra = 0 if features is None else features.shape[2]
    per_vector = 16 // hidden.element_size()
    stride = ceil_div(channels + extra, per_vector) * per_vector
    y = hidden.new_empty(batch * tokens, stride)
    block = min(128, power_of_two(stride))
    _activate[(ceil_div(batch * tokens, 32), ceil_div(stride, block))](
        hidden, features, category, y, tokens, 0 if features is None else features.shape[1], batch * tokens,
        HIDDEN=channels, EXTRA=extra, STRIDE=stride, BLOCK_N=32, BLOCK_C=block, num_warps=4,
    )  # fmt: skip
    return y


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _by_tap(weight: Tensor) -> Tensor:
    """(k², channels): channels lie together, as in the image."""
    return weight.reshape(weight.shape[0], -1).t().contiguous()


def _tiles(batch: int, height: int, width: int, y: Tensor, weight: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """Launch grid and compile-time arguments of the convolving kernels."""
    channels = weight.shape[0]
    block = min(64, power_of_two(channels))
    tiles = ceil_div(height, _TILE) * ceil_div(width, _TILE) * ceil_div(channels, block)
    constants = {
        "CHANNELS": channels,
        "STRIDE": y.shape[1],
        "SIDE": weight.shape[-1],
        "TILE": _TILE,
        "BLOCK_C": block,
        "num_warps": 8 if block > 32 else 4,
    }
    return (tiles, batch), constants


@torch.library.custom_op("atd::category_feedforward", mutates_args=())
def _category_feedforward(
    hidden: Tensor,
    height: int,
    width: int,
    weight: Tensor,
    bias: Tensor | None,
    features: Tensor | None,
    category: Tensor | None,
) -> Tensor:
    hidden, features, category = hidden.contiguous(), _contiguous(features), _contiguous(category)
    batch, tokens, _ = hidden.shape
    output = hidden.new_empty(batch, tokens, weight.shape[0])
    with device_of(hidden):
        y = _activated(hidden, features, category)
        launch_grid, constants = _tiles(batch, height, width, y, weight)
        _forward[launch_grid](y, _by_tap(weight), bias, output, height, width, **constants)
    return output


@_category_feedforward.register_fake
def _(hidden, height, width, weight, bias, features, category):
    return hidden.new_empty(hidden.shape[0], hidden.shape[1], weight.shape[0])


@torch.library.custom_op("atd::category_feedforward_backward", mutates_args=())
def _category_feedforward_backward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    features: Tensor | None,
    category: Tensor | None,
    grad_output: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of hidden, weight, bias and features; the last is empty where there are none."""
    hidden, features, category = hidden.contiguous(), _contiguous(features), _contiguous(category)
    grad_output = grad_output.contiguous()
    batch, tokens, width_hidden = hidden.shape
    channels, side, rows = weight.shape[0], weight.shape[-1], batch * tokens
    extra = channels - width_hidden
    grad_hidden = torch.empty_like(hidden)
    grad_chosen = torch.empty(rows, extra, dtype=torch.float32, device=hidden.device)
    share = max(8, ceil_div(ceil_div(rows, _WEIGHT_PIXELS), 64)) * _WEIGHT_PIXELS  # at most 64 partial sums
    splits = ceil_div(rows, share)
    grad_taps = torch.empty(splits, side, side, channels, dtype=torch.float32, device=hidden.device)
    with device_of(hidden):
        y = _activated(hidden, features, category)
        launch_grid, constants = _tiles(batch, height, width, y, weight)
        taps = _by_tap(weight)
        grad_convolution = torch.empty_like(y)
        _convolution_backward[launch_grid](
            y, taps, bias, grad_output, grad_convolution, height, width, **constants
        )  # fmt: skip
        _input_backward[launch_grid](
            hidden, taps, grad_output, grad_convolution, grad_hidden, grad_chosen, height, width,
            HIDDEN=width_hidden, EXTRA=extra, **constants,
        )  # fmt: skip
        _weight_backward[(ceil_div(channels, 32), side, splits)](
            y, grad_convolution, grad_taps, height, width, rows, share,
            CHANNELS=channels, STRIDE=y.shape[1], SIDE=side, BLOCK_X=power_of_two(side, 4),
            PIXELS=_WEIGHT_PIXELS, BLOCK_C=32, num_warps=4,
        )  # fmt: skip
    grad_weight = grad_taps.sum(0).movedim(-1, 0)[:, None].to(weight.dtype).contiguous()
    grad_bias = grad_convolution[:, :channels].sum(0, dtype=torch.float32).to(weight.dtype)
    return grad_hidden, grad_weight, grad_bias, _features_gradient(features, category, grad_chosen)


def _features_gradient(features: Tensor | None, category: Tensor | None, grad_chosen: Tensor) -> Tensor:
    if features is None or category is None:
        return grad_chosen.new_empty(0)
    batch, entries, extra = features.shape
    offsets = entries * torch.arange(batch, device=category.device)[:, None]
    grad = torch.zeros(batch * entries, extra, dtype=torch.float32, device=features.device)
    # Not index_add_, whose atomic additions on a card come in another order on every run; this one sorts first.
    grad.index_put_(((category + offsets).view(-1),), grad_chosen, accumulate=True)
    return grad.view_as(features).to(features.dtype)


@_category_feedforward_backward.register_fake
def _(hidden, weight, bias, features, category, grad_output, height, width):
    return (
        hidden.new_empty(hidden.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[0]),
        hidden.new_empty(0, dtype=torch.float32) if features is None else features.new_empty(features.shape),
    )


def _setup_context(ctx, inputs, output) -> None:
    hidden, height, width, *others = inputs
    ctx.grid = height, width
    ctx.save_for_backward(hidden, *others)


def _backward(ctx, grad_output):
    _, _, bias, features, _ = ctx.saved_tensors
    of_hidden, of_weight, of_bias, of_features = torch.ops.atd.category_feedforward_backward(
        *ctx.saved_tensors, grad_output, *ctx.grid
    )
    return (
        of_hidden, None, None, of_weight,
        None if bias is None else of_bias, None if features is None else of_features, None,
    )  # fmt: skip


_category_feedforward.register_autograd(_backward, setup_context=_setup_context)


def category_feedforward(
    hidden: Tensor,
    grid: tuple[int, int],
    weight: Tensor,
    bias: Tensor | None,
    features: Tensor | None = None,
    category: Tensor | None = None,
) -> Tensor:
    """:func:`atd.ops.category_feedforward`."""
    return _category_feedforward(autocast(hidden), *grid, weight, bias, features, category)
