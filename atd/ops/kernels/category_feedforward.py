# pyright: basic
"""Category-aware feed-forward network: GELU, category channels, depthwise convolution, GELU and residual in one op.

Two launches. The first writes ``y = concat(GELU(hidden), features[category])`` as a padded image: rows of a multiple of
16 bytes, so that odd channel counts load in whole vectors, and a rim of zeros, so that no tap needs a mask. The second
convolves it where it lies, channels last, from the L1; a lane takes four neighbouring pixels, which share most of what
it loads. One launch would have to evaluate the error function once per tap: 25 or 49 times for each value instead of
once, which costs more than the two passes over ``y`` that it saves.

Backward, ``y`` and the convolution are computed again; nothing but the inputs is kept.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportIndexIssue=false
# Inside @triton.jit Python's types mean something else.

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from atd.ops.kernels.launch import autocast, ceil_div, device_of, power_of_two

_TILE = 8  # side of the square of pixels that a program convolves, two strips of four wide
_WEIGHT_PIXELS = 16  # pixels that a program of the weight gradient takes at a time


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _gelu_slope(x):
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476)) + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)


@triton.jit
def _activate(
    hidden, features, category, y, entries, height, width, tall, wide,
    HIDDEN: tl.constexpr, EXTRA: tl.constexpr, STRIDE: tl.constexpr, RADIUS: tl.constexpr,
    BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """y[b, RADIUS + py, RADIUS + px] = (GELU(hidden), features[b, category], zeros up to STRIDE), zeros elsewhere."""
    across = tl.cdiv(wide, BLOCK_X)
    line = tl.program_id(0) // across  # of y, over the whole batch
    batch = line // tall
    py = line % tall - RADIUS
    x = tl.program_id(0) % across * BLOCK_X + tl.arange(0, BLOCK_X)
    px = x - RADIUS
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (py >= 0) & (py < height) & (px >= 0) & (px < width)
    token = (batch.to(tl.int64) * height + py) * width + px
    value = tl.load(hidden + token[:, None] * HIDDEN + c, mask=inside[:, None] & (c < HIDDEN), other=0.0)
    value = _gelu(value.to(tl.float32))
    if EXTRA > 0:
        entry = batch.to(tl.int64) * entries + tl.load(category + token, mask=inside, other=0)
        extra = c - HIDDEN
        chosen = inside[:, None] & (extra >= 0) & (extra < EXTRA)
        chosen = tl.load(features + entry[:, None] * EXTRA + extra, mask=chosen, other=0.0)
        value = tl.where(extra >= 0, chosen.to(tl.float32), value)
    address = y + (line.to(tl.int64) * wide + x)[:, None] * STRIDE + c
    tl.store(address, value.to(y.dtype.element_ty), mask=(x < wide)[:, None] & (c < STRIDE))


@triton.jit
def _strips(width, CHANNELS: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr):
    """y and x of the first of the four pixels of each strip of this program's tile, and the channels."""
    channel_blocks = tl.cdiv(CHANNELS, BLOCK_C)
    tile = tl.program_id(0) // channel_blocks
    c = tl.program_id(0) % channel_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    across = tl.cdiv(width, TILE)
    strip = tl.arange(0, TILE * TILE // 4)
    return tile // across * TILE + strip // (TILE // 4), tile % across * TILE + strip % (TILE // 4) * 4, c


@triton.jit
def _in_padded(padded, py, px, c, tall, wide, STRIDE: tl.constexpr):
    """Where the kernel of each strip's first pixel begins in a padded image: that pixel is RADIUS further on."""
    image = tl.program_id(1).to(tl.int64) * tall * wide
    return padded + (image + (py * wide + px))[:, None] * STRIDE + c


@triton.jit
def _convolve(
    first, taps, c, wide, STRIDE: tl.constexpr, SIDE: tl.constexpr, STRIPS: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """Depthwise convolution at the four pixels of each strip; ``taps`` is (SIDE², STRIDE) float32."""
    total_0 = tl.zeros((STRIPS, BLOCK_C), tl.float32)
    total_1 = tl.zeros((STRIPS, BLOCK_C), tl.float32)
    total_2 = tl.zeros((STRIPS, BLOCK_C), tl.float32)
    total_3 = tl.zeros((STRIPS, BLOCK_C), tl.float32)
    mask = c < STRIDE
    # A loop over rows and no more: with all taps unrolled the compiler holds too many loads in flight and spills.
    for _ in range(SIDE):
        for column in tl.static_range(SIDE + 3):  # pyright: ignore[reportGeneralTypeIssues]
            value = tl.load(first + column * STRIDE, mask=mask[None, :], other=0.0).to(tl.float32)
            # The same taps again and again: the compiler loads each once a row.
            if column < SIDE:
                total_0 += value * tl.load(taps + column * STRIDE + c, mask=mask, other=0.0)[None, :]
            if column >= 1 and column < SIDE + 1:
                total_1 += value * tl.load(taps + (column - 1) * STRIDE + c, mask=mask, other=0.0)[None, :]
            if column >= 2 and column < SIDE + 2:
                total_2 += value * tl.load(taps + (column - 2) * STRIDE + c, mask=mask, other=0.0)[None, :]
            if column >= 3:
                total_3 += value * tl.load(taps + (column - 3) * STRIDE + c, mask=mask, other=0.0)[None, :]
        first += wide.to(tl.int64) * STRIDE
        taps += SIDE * STRIDE
    return total_0, total_1, total_2, total_3


@triton.jit
def _forward(
    y, taps, bias, output, height, width, tall, wide,
    CHANNELS: tl.constexpr, STRIDE: tl.constexpr, SIDE: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    RADIUS: tl.constexpr = SIDE // 2
    py, px, c = _strips(width, CHANNELS, TILE, BLOCK_C)
    first = _in_padded(y, py, px, c, tall, wide, STRIDE)
    totals = _convolve(first, taps, c, wide, STRIDE, SIDE, TILE * TILE // 4, BLOCK_C)
    row = tl.program_id(1).to(tl.int64) * height * width + (py * width + px)
    first += (wide.to(tl.int64) * RADIUS + RADIUS) * STRIDE
    shift = tl.zeros((BLOCK_C,), tl.float32)
    if bias is not None:
        shift += tl.load(bias + c, mask=c < CHANNELS, other=0.0).to(tl.float32)
    for p in tl.static_range(4):  # pyright: ignore[reportGeneralTypeIssues]
        centre = tl.load(first + p * STRIDE, mask=(c < STRIDE)[None, :], other=0.0)
        result = centre.to(tl.float32) + _gelu(totals[p] + shift[None, :])
        mask = ((py < height) & (px + p < width))[:, None] & (c < CHANNELS)
        tl.store(output + (row + p)[:, None] * CHANNELS + c, result.to(output.dtype.element_ty), mask=mask)


@triton.jit
def _convolution_backward(
    y, taps, bias, grad_output, grad_convolution, height, width, tall, wide,
    CHANNELS: tl.constexpr, STRIDE: tl.constexpr, SIDE: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradient of the convolution's result, as a padded image whose rim the caller has set to zero."""
    RADIUS: tl.constexpr = SIDE // 2
    py, px, c = _strips(width, CHANNELS, TILE, BLOCK_C)
    first = _in_padded(y, py, px, c, tall, wide, STRIDE)
    totals = _convolve(first, taps, c, wide, STRIDE, SIDE, TILE * TILE // 4, BLOCK_C)
    row = tl.program_id(1).to(tl.int64) * height * width + (py * width + px)
    target = _in_padded(grad_convolution, py + RADIUS, px + RADIUS, c, tall, wide, STRIDE)
    shift = tl.zeros((BLOCK_C,), tl.float32)
    if bias is not None:
        shift += tl.load(bias + c, mask=c < CHANNELS, other=0.0).to(tl.float32)
    for p in tl.static_range(4):  # pyright: ignore[reportGeneralTypeIssues]
        inside = ((py < height) & (px + p < width))[:, None]
        address = grad_output + (row + p)[:, None] * CHANNELS + c
        g = tl.load(address, mask=inside & (c < CHANNELS), other=0.0).to(tl.float32)
        result = (g * _gelu_slope(totals[p] + shift[None, :])).to(grad_convolution.dtype.element_ty)
        tl.store(target + p * STRIDE, result, mask=inside & (c < STRIDE))


@triton.jit
def _input_backward(
    hidden, taps, grad_output, grad_convolution, grad_hidden, grad_chosen, height, width, tall, wide,
    HIDDEN: tl.constexpr, EXTRA: tl.constexpr,
    CHANNELS: tl.constexpr, STRIDE: tl.constexpr, SIDE: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradients of ``hidden`` and of every token's category channels; ``taps`` come in reverse order."""
    py, px, c = _strips(width, CHANNELS, TILE, BLOCK_C)
    first = _in_padded(grad_convolution, py, px, c, tall, wide, STRIDE)
    totals = _convolve(first, taps, c, wide, STRIDE, SIDE, TILE * TILE // 4, BLOCK_C)
    first_row = tl.program_id(1).to(tl.int64) * height * width + (py * width + px)
    for p in tl.static_range(4):  # pyright: ignore[reportGeneralTypeIssues]
        row = first_row + p
        inside = ((py < height) & (px + p < width))[:, None]
        mask = inside & (c < CHANNELS)
        total = totals[p] + tl.load(grad_output + row[:, None] * CHANNELS + c, mask=mask, other=0.0).to(tl.float32)
        of_hidden = inside & (c < HIDDEN)
        x = tl.load(hidden + row[:, None] * HIDDEN + c, mask=of_hidden, other=0.0).to(tl.float32)
        result = (total * _gelu_slope(x)).to(grad_hidden.dtype.element_ty)
        tl.store(grad_hidden + row[:, None] * HIDDEN + c, result, mask=of_hidden)
        if EXTRA > 0:
            tl.store(grad_chosen + row[:, None] * EXTRA + c - HIDDEN, total, mask=mask & (c >= HIDDEN))


@triton.jit
def _weight_backward(
    y, grad_convolution, grad_weight, wide, total, share,
    CHANNELS: tl.constexpr, STRIDE: tl.constexpr, SIDE: tl.constexpr, BLOCK_X: tl.constexpr,
    PIXELS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One row of taps of the weight gradient over ``share`` pixels; partial sums as (splits, SIDE, SIDE, CHANNELS).

    Both images are padded; pixels in the rim have a gradient of zero, so nothing asks where a line ends. Every thread
    adds up its own pixels; threads meet once, after the last of them.
    """
    RADIUS: tl.constexpr = SIDE // 2
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    tap_y, split = tl.program_id(1), tl.program_id(2)
    tap_x = tl.arange(0, BLOCK_X)
    grad = tl.zeros((BLOCK_X, PIXELS, BLOCK_C), tl.float32)
    for offset in range(0, share, PIXELS):
        place = split.to(tl.int64) * share + offset + tl.arange(0, PIXELS)  # of a pixel's first tap
        valid = place < total
        centre = grad_convolution + (place + RADIUS * wide + RADIUS)[:, None] * STRIDE + c
        g = tl.load(centre, mask=valid[:, None] & (c < STRIDE), other=0.0)
        other = (place + tap_y * wide)[None, :] + tap_x[:, None]
        needed = valid[None, :] & (tap_x < SIDE)[:, None]
        value = tl.load(y + other[:, :, None] * STRIDE + c, mask=needed[:, :, None] & (c < STRIDE), other=0.0)
        grad += value.to(tl.float32) * g.to(tl.float32)[None, :, :]
    address = grad_weight + ((split.to(tl.int64) * SIDE + tap_y) * SIDE + tap_x[:, None]) * CHANNELS + c
    tl.store(address, tl.sum(grad, axis=1), mask=(tap_x < SIDE)[:, None] & (c < CHANNELS))


def _activated(
    hidden: Tensor, height: int, width: int, channels: int, side: int, features: Tensor | None, category: Tensor | None
) -> Tensor:
    """y as a padded image (b, tall, wide, STRIDE): whole tiles of pixels lie inside a rim of zeros."""
    batch, _, narrow = hidden.shape
    stride = _stride(channels, hidden.dtype)
    radius = side // 2
    tall, wide = (ceil_div(extent, _TILE) * _TILE + 2 * radius for extent in (height, width))
    y = hidden.new_empty(batch, tall, wide, stride)
    block = min(128, power_of_two(stride))
    _activate[(batch * tall * ceil_div(wide, 32), ceil_div(stride, block))](
        hidden, features, category, y, 0 if features is None else features.shape[1], height, width, tall, wide,
        HIDDEN=narrow, EXTRA=channels - narrow, STRIDE=stride, RADIUS=radius, BLOCK_X=32, BLOCK_C=block,
        num_warps=4,
    )  # fmt: skip
    return y


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _stride(channels: int, dtype: torch.dtype) -> int:
    """The channels rounded up to whole vectors of 16 bytes."""
    per_vector = 16 // dtype.itemsize
    return ceil_div(channels, per_vector) * per_vector


def by_tap(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(k², stride) float32 from (E, 1, k, k), for images of ``dtype``: channels lie together, as there, with zeros at
    their end."""
    taps = weight.new_zeros(weight[0].numel(), _stride(len(weight), dtype), dtype=torch.float32)
    taps[:, : len(weight)] = weight.reshape(len(weight), -1).t()
    return taps


def _tiles(
    height: int, width: int, y: Tensor, channels: int, side: int
) -> tuple[tuple[int, int], tuple[int, ...], dict[str, Any]]:
    """Launch grid, sizes and compile-time arguments of the convolving kernels."""
    batch, tall, wide, stride = y.shape
    block = min(64, power_of_two(channels))
    tiles = ceil_div(height, _TILE) * ceil_div(width, _TILE) * ceil_div(channels, block)
    constants = {
        "CHANNELS": channels,
        "STRIDE": stride,
        "SIDE": side,
        "TILE": _TILE,
        "BLOCK_C": block,
        "num_warps": max(1, block // 16),
    }
    return (tiles, batch), (height, width, tall, wide), constants


def feed_forward(
    hidden: Tensor,
    grid: tuple[int, int],
    taps: Tensor,
    bias: Tensor | None,
    channels: int,
    features: Tensor | None,
    category: Tensor | None,
) -> Tensor:
    """:func:`atd.ops.category_feedforward` of contiguous tensors, with the ``taps`` of :func:`by_tap`."""
    side = math.isqrt(len(taps))
    output = hidden.new_empty(hidden.shape[0], hidden.shape[1], channels)
    with device_of(hidden):
        y = _activated(hidden, *grid, channels, side, features, category)
        launch_grid, sizes, constants = _tiles(*grid, y, channels, side)
        _forward[launch_grid](y, taps, bias, output, *sizes, **constants)
    return output


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
    taps = by_tap(weight, hidden.dtype)
    return feed_forward(hidden, (height, width), taps, bias, len(weight), features, category)


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
    with device_of(hidden):
        y = _activated(hidden, height, width, channels, side, features, category)
        launch_grid, sizes, constants = _tiles(height, width, y, channels, side)
        taps = by_tap(weight, y.dtype)
        grad_convolution = torch.zeros_like(y)
        _convolution_backward[launch_grid](y, taps, bias, grad_output, grad_convolution, *sizes, **constants)
        _input_backward[launch_grid](
            hidden, taps.flip(0), grad_output, grad_convolution, grad_hidden, grad_chosen, *sizes,
            HIDDEN=width_hidden, EXTRA=extra, **constants,
        )  # fmt: skip
        wide, stride = y.shape[2:]
        places = y.numel() // stride - (side - 1) * (wide + 1)
        share = max(8, ceil_div(ceil_div(places, _WEIGHT_PIXELS), 64)) * _WEIGHT_PIXELS  # at most 64 partial sums
        splits = ceil_div(places, share)
        grad_taps = torch.empty(splits, side, side, channels, dtype=torch.float32, device=hidden.device)
        _weight_backward[(ceil_div(channels, 32), side, splits)](
            y, grad_convolution, grad_taps, wide, places, share,
            CHANNELS=channels, STRIDE=stride, SIDE=side, BLOCK_X=power_of_two(side, 4),
            PIXELS=_WEIGHT_PIXELS, BLOCK_C=32, num_warps=4,
        )  # fmt: skip
    grad_weight = grad_taps.sum(0).movedim(-1, 0)[:, None].to(weight.dtype).contiguous()
    grad_bias = grad_convolution[..., :channels].sum((0, 1, 2), dtype=torch.float32).to(weight.dtype)
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
