# pyright: basic
"""Softmax attention in groups of indexed rows: the kernels behind window attention and category attention.

A program takes a block of queries of one head of one group, gathers the rows of the group's keys and values by index,
block by block, and scatters its results to the tokens' own places: neither gathered copies nor attention maps are
written. The index is computed from the geometry of shifted windows, or read from the category order. Backward, the
attention is recomputed from the saved log-sum-exp.

Logits, biases and log-sum-exps are to the base 2, whose exponential a card has an instruction for.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportIndexIssue=false
# Inside @triton.jit Python's types mean something else.

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from atd.ops.kernels.launch import ceil_div, device_of, power_of_two
from atd.ops.kernels.limits import FAST_MASK

_LOG2_E = tl.constexpr(math.log2(math.e))
_MASK_VALUE = tl.constexpr(FAST_MASK)


@triton.jit
def _program(groups, HEADS: tl.constexpr, BLOCKS: tl.constexpr):
    """(head, block, group, batch) of this program; heads of a group run side by side and share its rows in the L2."""
    pid = tl.program_id(0)
    return pid % HEADS, pid // HEADS % BLOCKS, pid // (HEADS * BLOCKS) % groups, pid // (HEADS * BLOCKS) // groups


@triton.jit
def _rows(
    order, places, group, batch, tokens, pad, height, width,
    SIZE: tl.constexpr, WINDOW: tl.constexpr, SHIFT: tl.constexpr,
):  # fmt: skip
    """Row of qkv, counted over the whole batch, at each place of a group."""
    if WINDOW > 0:
        columns = width // WINDOW
        y = group // columns * WINDOW + places // WINDOW + SHIFT
        x = group % columns * WINDOW + places % WINDOW + SHIFT
        y = tl.where(y >= height, y - height, y)
        x = tl.where(x >= width, x - width, x)
        token = y.to(tl.int64) * width + x
    else:
        place = group.to(tl.int64) * SIZE + places
        # The last group is filled by the last ``pad`` sorted rows once more.
        place = tl.where(place < tokens, place, place - pad)
        token = tl.load(order + batch.to(tl.int64) * tokens + place, mask=places < SIZE, other=0)
    return batch.to(tl.int64) * tokens + token


@triton.jit
def _load(source, rows, valid, column, STRIDE: tl.constexpr, HEAD: tl.constexpr, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    return tl.load(source + rows[:, None] * STRIDE + column + d, mask=valid[:, None] & (d < HEAD), other=0.0)


@triton.jit
def _store(target, rows, valid, column, values, STRIDE: tl.constexpr, HEAD: tl.constexpr, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    address = target + rows[:, None] * STRIDE + column + d
    tl.store(address, values.to(target.dtype.element_ty), mask=valid[:, None] & (d < HEAD))


@triton.jit
def _spread(table, bias, HEADS: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr):
    """bias[head, q, k], to the base 2, from the rows of a table ((2w − 1)², H): one for each offset of two places."""
    SIZE: tl.constexpr = WINDOW * WINDOW
    head = tl.program_id(1)
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    q, k = pair // SIZE, pair % SIZE
    row = (q // WINDOW - k // WINDOW + WINDOW - 1) * (2 * WINDOW - 1) + q % WINDOW - k % WINDOW + WINDOW - 1
    value = tl.load(table + row * HEADS + head, mask=pair < SIZE * SIZE, other=0.0).to(tl.float32) * _LOG2_E
    tl.store(bias + head * SIZE * SIZE + pair, value.to(bias.dtype.element_ty), mask=pair < SIZE * SIZE)


@triton.jit
def _regions(places, group, height, width, WINDOW: tl.constexpr, SHIFT: tl.constexpr):
    """A number for the part of its window that each place lies in; parts were no neighbours before the shift.

    Only windows of the last row and the last column have more than one.
    """
    columns = width // WINDOW
    below = (places // WINDOW >= WINDOW - SHIFT) & (group // columns == height // WINDOW - 1)
    beyond = (places % WINDOW >= WINDOW - SHIFT) & (group % columns == columns - 1)
    return tl.where(below, 2, 0) + tl.where(beyond, 1, 0)


@triton.jit
def _add_bias(
    logits, bias, head, group, q, k, height, width,
    SIZE: tl.constexpr, WINDOW: tl.constexpr, SHIFT: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Logits between places ``q`` and ``k``, which broadcast against each other, with the stored bias and the mask of
    shifted windows; ``FULL``: no place lies beyond the window's last."""
    address = bias + (head * SIZE + q) * SIZE + k
    if FULL:
        logits += tl.load(address).to(tl.float32)
    else:
        logits += tl.load(address, mask=(q < SIZE) & (k < SIZE), other=0.0).to(tl.float32)
    if SHIFT > 0:
        together = _regions(q, group, height, width, WINDOW, SHIFT) == _regions(k, group, height, width, WINDOW, SHIFT)
        logits = tl.where(together, logits, _MASK_VALUE)
    return logits


@triton.jit
def _forward(
    qkv, order, bias, learned_scale, output, log_sum, tokens, groups, pad, height, width, scale,
    SIZE: tl.constexpr, HEADS: tl.constexpr, HEAD: tl.constexpr, WINDOW: tl.constexpr, SHIFT: tl.constexpr,
    STRIDE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    CHANNELS: tl.constexpr = HEADS * HEAD
    head, block, group, batch = _program(groups, HEADS, tl.cdiv(SIZE, BLOCK_Q))
    if learned_scale is not None:
        scale = tl.load(learned_scale)
    q_places = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    q_valid = q_places < SIZE
    q_rows = _rows(order, q_places, group, batch, tokens, pad, height, width, SIZE, WINDOW, SHIFT)
    q = _load(qkv, q_rows, q_valid, head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)

    highest = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    attended = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    for start in range(0, SIZE, BLOCK_K):
        k_places = start + tl.arange(0, BLOCK_K)
        k_valid = k_places < SIZE
        k_rows = _rows(order, k_places, group, batch, tokens, pad, height, width, SIZE, WINDOW, SHIFT)
        k = _load(qkv, k_rows, k_valid, CHANNELS + head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
        v = _load(qkv, k_rows, k_valid, 2 * CHANNELS + head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * _LOG2_E)
        if WINDOW > 0:
            logits = _add_bias(
                logits, bias, head, group, q_places[:, None], k_places[None, :], height, width,
                SIZE, WINDOW, SHIFT, SIZE % BLOCK_Q == 0 and SIZE % BLOCK_K == 0,
            )  # fmt: skip
        if SIZE % BLOCK_K != 0:
            logits = tl.where(k_valid[None, :], logits, float("-inf"))
        peak = tl.maximum(highest, tl.max(logits, axis=1))
        weights = tl.exp2(logits - peak[:, None])
        decay = tl.exp2(highest - peak)
        total = total * decay + tl.sum(weights, axis=1)
        attended = tl.dot(weights.to(v.dtype), v, attended * decay[:, None], input_precision="ieee")
        highest = peak

    q_real = q_valid & (group.to(tl.int64) * SIZE + q_places < tokens)
    _store(output, q_rows, q_real, head * HEAD, attended / total[:, None], STRIDE, HEAD, BLOCK_D)
    base = ((batch.to(tl.int64) * groups + group) * HEADS + head) * SIZE
    tl.store(log_sum + base + q_places, highest + tl.log2(total), mask=q_valid)


@triton.jit
def _query_backward(
    qkv, order, bias, learned_scale, output, log_sum, grad_output, delta, grad_qkv, grad_scale,
    tokens, groups, pad, height, width, scale,
    SIZE: tl.constexpr, HEADS: tl.constexpr, HEAD: tl.constexpr, WINDOW: tl.constexpr, SHIFT: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of the queries, this program's part of the scale's, and δ = Σ_d grad_output·output for the others."""
    CHANNELS: tl.constexpr = HEADS * HEAD
    head, block, group, batch = _program(groups, HEADS, tl.cdiv(SIZE, BLOCK_Q))
    if learned_scale is not None:
        scale = tl.load(learned_scale)
    q_places = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    q_valid = q_places < SIZE
    q_real = q_valid & (group.to(tl.int64) * SIZE + q_places < tokens)
    q_rows = _rows(order, q_places, group, batch, tokens, pad, height, width, SIZE, WINDOW, SHIFT)
    q = _load(qkv, q_rows, q_valid, head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
    g = _load(grad_output, q_rows, q_real, head * HEAD, CHANNELS, HEAD, BLOCK_D)
    o = _load(output, q_rows, q_real, head * HEAD, CHANNELS, HEAD, BLOCK_D)
    base = ((batch.to(tl.int64) * groups + group) * HEADS + head) * SIZE
    lse = tl.load(log_sum + base + q_places, mask=q_valid, other=float("inf"))
    d = tl.sum(g.to(tl.float32) * o.to(tl.float32), axis=1)
    tl.store(delta + base + q_places, d, mask=q_valid)

    grad = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    for start in range(0, SIZE, BLOCK_K):
        k_places = start + tl.arange(0, BLOCK_K)
        k_valid = k_places < SIZE
        k_rows = _rows(order, k_places, group, batch, tokens, pad, height, width, SIZE, WINDOW, SHIFT)
        k = _load(qkv, k_rows, k_valid, CHANNELS + head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
        v = _load(qkv, k_rows, k_valid, 2 * CHANNELS + head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * _LOG2_E)
        if WINDOW > 0:
            logits = _add_bias(
                logits, bias, head, group, q_places[:, None], k_places[None, :], height, width,
                SIZE, WINDOW, SHIFT, SIZE % BLOCK_Q == 0 and SIZE % BLOCK_K == 0,
            )  # fmt: skip
        weights = tl.where(k_valid[None, :], tl.exp2(logits - lse[:, None]), 0.0)
        grad_logits = weights * (tl.dot(g, tl.trans(v), input_precision="ieee") - d[:, None])
        grad = tl.dot(grad_logits.to(k.dtype), k, grad, input_precision="ieee")

    _store(grad_qkv, q_rows, q_real, head * HEAD, grad * scale, 3 * CHANNELS, HEAD, BLOCK_D)
    if learned_scale is not None:
        tl.store(grad_scale + tl.program_id(0), tl.sum(q.to(tl.float32) * grad))


@triton.jit
def _key_backward(
    qkv, order, bias, learned_scale, log_sum, grad_output, delta, grad_qkv, grad_tail,
    tokens, groups, pad, height, width, scale,
    SIZE: tl.constexpr, HEADS: tl.constexpr, HEAD: tl.constexpr, WINDOW: tl.constexpr, SHIFT: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients of the keys and values; those of rows that fill the last group go to ``grad_tail``, (b, pad, 2C).

    All maps here are (keys, queries), so that none is transposed on its way into a product.
    """
    CHANNELS: tl.constexpr = HEADS * HEAD
    head, block, group, batch = _program(groups, HEADS, tl.cdiv(SIZE, BLOCK_K))
    if learned_scale is not None:
        scale = tl.load(learned_scale)
    k_places = block * BLOCK_K + tl.arange(0, BLOCK_K)
    k_valid = k_places < SIZE
    k_rows = _rows(order, k_places, group, batch, tokens, pad, height, width, SIZE, WINDOW, SHIFT)
    k = _load(qkv, k_rows, k_valid, CHANNELS + head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
    v = _load(qkv, k_rows, k_valid, 2 * CHANNELS + head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
    base = ((batch.to(tl.int64) * groups + group) * HEADS + head) * SIZE

    of_key = tl.zeros((BLOCK_K, BLOCK_D), tl.float32)
    of_value = tl.zeros((BLOCK_K, BLOCK_D), tl.float32)
    for start in range(0, SIZE, BLOCK_Q):
        q_places = start + tl.arange(0, BLOCK_Q)
        q_valid = q_places < SIZE
        q_real = q_valid & (group.to(tl.int64) * SIZE + q_places < tokens)
        q_rows = _rows(order, q_places, group, batch, tokens, pad, height, width, SIZE, WINDOW, SHIFT)
        q = _load(qkv, q_rows, q_valid, head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
        g = _load(grad_output, q_rows, q_real, head * HEAD, CHANNELS, HEAD, BLOCK_D)
        lse = tl.load(log_sum + base + q_places, mask=q_valid, other=float("inf"))
        d = tl.load(delta + base + q_places, mask=q_valid, other=0.0)
        logits = tl.dot(k, tl.trans(q), input_precision="ieee") * (scale * _LOG2_E)
        if WINDOW > 0:
            logits = _add_bias(
                logits, bias, head, group, q_places[None, :], k_places[:, None], height, width,
                SIZE, WINDOW, SHIFT, SIZE % BLOCK_Q == 0 and SIZE % BLOCK_K == 0,
            )  # fmt: skip
        weights = tl.exp2(logits - lse[None, :])
        of_value = tl.dot(weights.to(g.dtype), g, of_value, input_precision="ieee")
        grad_logits = weights * (tl.dot(v, tl.trans(g), input_precision="ieee") - d[None, :])
        of_key = tl.dot(grad_logits.to(q.dtype), q, of_key, input_precision="ieee")

    of_key *= scale
    place = group.to(tl.int64) * SIZE + k_places
    k_real = k_valid & (place < tokens)
    _store(grad_qkv, k_rows, k_real, CHANNELS + head * HEAD, of_key, 3 * CHANNELS, HEAD, BLOCK_D)
    _store(grad_qkv, k_rows, k_real, 2 * CHANNELS + head * HEAD, of_value, 3 * CHANNELS, HEAD, BLOCK_D)
    if WINDOW == 0:
        tail = batch.to(tl.int64) * pad + place - tokens
        k_again = k_valid & (place >= tokens)
        _store(grad_tail, tail, k_again, head * HEAD, of_key, 2 * CHANNELS, HEAD, BLOCK_D)
        _store(grad_tail, tail, k_again, CHANNELS + head * HEAD, of_value, 2 * CHANNELS, HEAD, BLOCK_D)


@triton.jit
def _bias_backward(
    qkv, bias, log_sum, grad_output, delta, grad_bias, tokens, groups, height, width, scale, count, share,
    SIZE: tl.constexpr, HEADS: tl.constexpr, HEAD: tl.constexpr, WINDOW: tl.constexpr, SHIFT: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of one block of a head's (SIZE, SIZE) bias, summed over ``share`` of the ``count`` windows.

    The partial sums go to (splits, H, SIZE, SIZE) float32: no atomics, the same bits every time.
    """
    CHANNELS: tl.constexpr = HEADS * HEAD
    # Not tl.cdiv: before Triton 3.7 its result is no constant here.
    Q_BLOCKS: tl.constexpr = (SIZE + BLOCK_Q - 1) // BLOCK_Q
    K_BLOCKS: tl.constexpr = (SIZE + BLOCK_K - 1) // BLOCK_K
    pid, split = tl.program_id(0), tl.program_id(1)
    head = pid % HEADS
    q_places = pid // HEADS % Q_BLOCKS * BLOCK_Q + tl.arange(0, BLOCK_Q)
    k_places = pid // (HEADS * Q_BLOCKS) % K_BLOCKS * BLOCK_K + tl.arange(0, BLOCK_K)
    grad = tl.zeros((BLOCK_Q, BLOCK_K), tl.float32)
    for step in range(share):
        index = split * share + step
        batch, group = index // groups, index % groups
        live = tl.where(index < count, SIZE, 0)  # the last share may be a short one
        q_valid, k_valid = q_places < live, k_places < live
        q_rows = _rows(None, q_places, group, batch, tokens, 0, height, width, SIZE, WINDOW, SHIFT)
        k_rows = _rows(None, k_places, group, batch, tokens, 0, height, width, SIZE, WINDOW, SHIFT)
        q = _load(qkv, q_rows, q_valid, head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
        g = _load(grad_output, q_rows, q_valid, head * HEAD, CHANNELS, HEAD, BLOCK_D)
        k = _load(qkv, k_rows, k_valid, CHANNELS + head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
        v = _load(qkv, k_rows, k_valid, 2 * CHANNELS + head * HEAD, 3 * CHANNELS, HEAD, BLOCK_D)
        base = (index.to(tl.int64) * HEADS + head) * SIZE
        lse = tl.load(log_sum + base + q_places, mask=q_valid, other=float("inf"))
        d = tl.load(delta + base + q_places, mask=q_valid, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * _LOG2_E)
        logits = _add_bias(
            logits, bias, head, group, q_places[:, None], k_places[None, :], height, width,
            SIZE, WINDOW, SHIFT, SIZE % BLOCK_Q == 0 and SIZE % BLOCK_K == 0,
        )  # fmt: skip
        weights = tl.exp2(logits - lse[:, None])
        grad += weights * (tl.dot(g, tl.trans(v), input_precision="ieee") - d[:, None])

    address = grad_bias + ((split.to(tl.int64) * HEADS + head) * SIZE + q_places[:, None]) * SIZE + k_places[None, :]
    tl.store(address, grad, mask=(q_places < SIZE)[:, None] & (k_places < SIZE)[None, :])


@triton.jit
def _table_backward(
    grad_bias, grad_table, splits, HEADS: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr, PLACES: tl.constexpr
):  # fmt: skip
    """Sum the bias gradients of all pairs of places that share a row of the table.

    ``PLACES`` of them are loaded at once, so that many loads are under way.
    """
    SIDE: tl.constexpr = 2 * WINDOW - 1
    SIZE: tl.constexpr = WINDOW * WINDOW
    head = tl.program_id(1)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    dy, dx = row // SIDE - (WINDOW - 1), row % SIDE - (WINDOW - 1)
    total = tl.zeros((BLOCK, PLACES), tl.float32)
    for split in range(splits):
        for first in range(0, SIZE, PLACES):
            place = first + tl.arange(0, PLACES)
            y, x = (place // WINDOW)[None, :] - dy[:, None], (place % WINDOW)[None, :] - dx[:, None]
            inside = (row < SIDE * SIDE)[:, None] & (place < SIZE)[None, :]
            inside &= (y >= 0) & (y < WINDOW) & (x >= 0) & (x < WINDOW)
            base = ((split * HEADS + head).to(tl.int64) * SIZE + place) * SIZE
            total += tl.load(grad_bias + base[None, :] + y * WINDOW + x, mask=inside, other=0.0)
    tl.store(grad_table + row * HEADS + head, tl.sum(total, axis=1), mask=row < SIDE * SIDE)


class Groups(NamedTuple):
    """Which rows of (b, n, 3C) attend to each other, and how."""

    size: int
    """Rows g of a group."""
    count: int
    """Groups of one image."""
    heads: int
    scale: float
    """Factor of the logits, where no learned one is given."""
    pad: int = 0
    """Rows that fill the last group (category attention)."""
    window: int = 0
    """Side of a window; 0 for category attention."""
    shift: int = 0
    height: int = 0
    width: int = 0

    def sizes(self, qkv: Tensor) -> tuple[Any, ...]:
        """The arguments that state sizes, in the kernels' order."""
        return qkv.shape[1], self.count, self.pad, self.height, self.width, self.scale

    def constants(self, qkv: Tensor) -> dict[str, Any]:
        """Compile-time arguments: blocks of 64 rows (32 of float32)."""
        wide = qkv.dtype == torch.float32
        size = power_of_two(self.size)
        block = min(size, 32 if wide else 64)
        head = qkv.shape[2] // 3 // self.heads
        return {
            "SIZE": self.size,
            "HEADS": self.heads,
            "HEAD": head,
            "WINDOW": self.window,
            "SHIFT": self.shift,
            "BLOCK_Q": block,
            "BLOCK_K": block,
            "BLOCK_D": power_of_two(head),
            "num_warps": 4,
            "num_stages": 2,
        }


def spread_bias(table: Tensor, window: int, dtype: torch.dtype) -> Tensor:
    """(H, w², w²): a bias table ((2w − 1)², H) spread over the pairs of places of a window, to the base 2."""
    heads, pairs, block = table.shape[1], window**4, 1024
    bias = table.new_empty(heads, window**2, window**2, dtype=dtype)
    with device_of(table):
        _spread[(ceil_div(pairs, block), heads)](
            table.contiguous(), bias, HEADS=heads, WINDOW=window, BLOCK=block, num_warps=4
        )
    return bias


def attend(
    qkv: Tensor,
    order: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    groups: Groups,
    output: Tensor | None = None,
):
    """Output (b, n, C) and log-sum-exp to the base 2, (b, groups, H, g).

    Args:
        qkv: (b, n, 3C), contiguous.
        order: (b, n) int64, contiguous; None for windows.
        bias: (H, w², w²) of :func:`spread_bias`; None for categories.
        scale: learned factor of the logits, float32 of one element, or None for ``groups.scale``.
        output: (b, n, C) to write to, some channels of contiguous rows; a new tensor where it is None.
    """
    batch, tokens, channels = qkv.shape
    if output is None:
        output = qkv.new_empty(batch, tokens, channels // 3)
    log_sum = torch.empty(batch, groups.count, groups.heads, groups.size, dtype=torch.float32, device=qkv.device)
    constants = groups.constants(qkv)
    programs = batch * groups.count * ceil_div(groups.size, constants["BLOCK_Q"]) * groups.heads
    with device_of(qkv):
        _forward[(programs,)](
            qkv, order, bias, scale, output, log_sum, *groups.sizes(qkv), STRIDE=output.stride(1), **constants
        )
    return output, log_sum


def attend_backward(
    qkv: Tensor,
    order: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    output: Tensor,
    log_sum: Tensor,
    grad_output: Tensor,
    groups: Groups,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of qkv, of the bias table as ((2w − 1)², H) float32, and of the learned scale, float32 of one element.

    The last two are empty where there is no bias, no scale.
    """
    batch, tokens, channels = qkv.shape
    device = qkv.device
    constants = groups.constants(qkv)
    blocks = {side: ceil_div(groups.size, constants[f"BLOCK_{side}"]) for side in "QK"}
    heads = batch * groups.count * groups.heads
    delta = torch.empty_like(log_sum)
    grad_qkv = torch.empty_like(qkv)
    grad_tail = torch.empty(batch, groups.pad, channels * 2 // 3, dtype=torch.float32, device=device)
    learned = scale is not None
    grad_scale = torch.empty(heads * blocks["Q"] if learned else 0, dtype=torch.float32, device=device)
    with device_of(qkv):
        _query_backward[(heads * blocks["Q"],)](
            qkv, order, bias, scale, output, log_sum, grad_output, delta, grad_qkv, grad_scale,
            *groups.sizes(qkv), **constants,
        )  # fmt: skip
        # Two sums and two maps at once: with 64 queries a step they do not fit the registers (4000 bytes of a thread
        # spilled by triton 3.8 for ATD's windows and capability 8.0, 56 with 32).
        of_keys = {**constants, "BLOCK_Q": min(constants["BLOCK_Q"], 32)}
        _key_backward[(heads * blocks["K"],)](
            qkv, order, bias, scale, log_sum, grad_output, delta, grad_qkv, grad_tail,
            *groups.sizes(qkv), **of_keys,
        )  # fmt: skip
        grad_table = _table_gradient(qkv, bias, log_sum, grad_output, delta, groups, constants)
    if order is not None and groups.pad:
        again = order[:, tokens - groups.pad :, None].expand(-1, -1, grad_tail.shape[-1])
        of_rows = grad_qkv[:, :, channels // 3 :]
        of_rows.scatter_(1, again, (of_rows.gather(1, again) + grad_tail).to(qkv.dtype))
    return grad_qkv, grad_table, grad_scale.sum().view(1) if learned else grad_scale


def _table_gradient(
    qkv: Tensor,
    bias: Tensor | None,
    log_sum: Tensor,
    grad_output: Tensor,
    delta: Tensor,
    groups: Groups,
    constants: dict[str, Any],
) -> Tensor:
    if bias is None:
        return torch.empty(0, dtype=torch.float32, device=qkv.device)
    count = qkv.shape[0] * groups.count
    blocks = ceil_div(groups.size, constants["BLOCK_Q"]) * ceil_div(groups.size, constants["BLOCK_K"]) * groups.heads
    share = ceil_div(count, min(count, 8))
    splits = ceil_div(count, share)
    rows = (2 * groups.window - 1) ** 2
    grad_bias = log_sum.new_empty(splits, groups.heads, groups.size, groups.size)
    grad_table = log_sum.new_empty(rows, groups.heads)
    _bias_backward[(blocks, splits)](
        qkv, bias, log_sum, grad_output, delta, grad_bias, qkv.shape[1], groups.count, groups.height, groups.width,
        groups.scale, count, share, **constants,
    )  # fmt: skip
    _table_backward[(ceil_div(rows, 16), groups.heads)](
        grad_bias, grad_table, splits, HEADS=groups.heads, WINDOW=groups.window, BLOCK=16, PLACES=64, num_warps=4
    )
    return grad_table
