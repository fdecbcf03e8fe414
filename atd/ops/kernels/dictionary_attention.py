# pyright: basic
"""Dictionary cross-attention in one pass: cosine logits, online softmax, product with the values, category.

The (n, M) map lives in registers, a block at a time, forward and backward. Rows are normalised after the product: for
half inputs the tensor cores then multiply the values as given, exactly, and add them in float32, so a category is as
exact as in float32 arithmetic and costs what half arithmetic costs. Forward, an entry's logits take one factor,
scale/‖key‖, which is made once for all tokens, and a token's one other: equal keys with equal scales have equal logits,
bit for bit, and the first of them is the category.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportIndexIssue=false
# Inside @triton.jit Python's types mean something else.

import math
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from atd.ops.kernels.launch import autocast, ceil_div, device_of, dot_precision, multiplies_in_warpgroups, power_of_two

_EPS = tl.constexpr(1e-12)  # of F.normalize
_LOG2_E = tl.constexpr(math.log2(math.e))
_LN_2 = tl.constexpr(math.log(2))


@triton.jit
def _load_query(query, base, rows, valid, RANK: tl.constexpr, BLOCK_R: tl.constexpr):
    """Rows (N, R) of queries, and 1/‖row‖ (N,)."""
    r = tl.arange(0, BLOCK_R)
    q = tl.load(query + (base + rows)[:, None] * RANK + r, mask=valid[:, None] & (r < RANK), other=0.0)
    wide = q.to(tl.float32)
    return q, 1.0 / tl.maximum(tl.sqrt(tl.sum(wide * wide, axis=1)), _EPS)


@triton.jit
def _load_key(key, scale, base, columns, valid, RANK: tl.constexpr, PER_ENTRY: tl.constexpr, BLOCK_R: tl.constexpr):
    """Key columns (R, M), 1/‖column‖ (M,) and the entries' logit scales (M,)."""
    r = tl.arange(0, BLOCK_R)
    k = tl.load(
        key + (base + columns)[None, :] * RANK + r[:, None], mask=valid[None, :] & (r[:, None] < RANK), other=0.0
    )
    wide = k.to(tl.float32)
    inverse = 1.0 / tl.maximum(tl.sqrt(tl.sum(wide * wide, axis=0)), _EPS)
    if PER_ENTRY:  # noqa: SIM108 (a branch at compile time)
        factor = tl.load(scale + columns, mask=valid, other=0.0)
    else:
        factor = tl.load(scale) + tl.zeros_like(inverse)
    return k, inverse, factor


@triton.jit
def _load_rows(source, base, rows, valid, first, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Channels ``first`` to ``first + BLOCK_C`` of the rows, (N, C)."""
    c = first + tl.arange(0, BLOCK_C)
    return tl.load(source + (base + rows)[:, None] * CHANNELS + c, mask=valid[:, None] & (c < CHANNELS), other=0.0)


@triton.jit
def _factors(
    key, scale, key_factor, rows, entries,
    RANK: tl.constexpr, PER_ENTRY: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """key_factor[row] = scale/‖key[row]‖, for all entries of the batch; the same bits for the same keys."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    _, inverse = _load_query(key, 0, row.to(tl.int64), row < rows, RANK, BLOCK_R)
    factor = tl.load(scale + (row % entries if PER_ENTRY else row * 0), mask=row < rows, other=0.0)
    tl.store(key_factor + row, inverse * factor, mask=row < rows)


@triton.jit
def _forward(
    query, key, value, key_factor, shortcut, output, category, log_sum, gain, tokens, entries,
    RANK: tl.constexpr, CHANNELS: tl.constexpr, STRIDE: tl.constexpr, FULL: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """``key_factor`` is scale/‖key‖, (b, M); ``FULL``: the entries are whole blocks. Rows
    of ``value`` have STRIDE channels, of which CHANNELS are asked for.

    Logits lack the factor of their row until their exponential is taken, to the base 2: it is positive, so it changes
    neither the highest nor a tie.
    """
    first, batch = tl.program_id(1) * BLOCK_C, tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_valid = rows < tokens
    q, q_inverse = _load_query(query, batch * tokens, rows, row_valid, RANK, BLOCK_R)
    q_factor = q_inverse * _LOG2_E

    highest = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    best = tl.zeros((BLOCK_N,), tl.int32)
    attended = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    r, m = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_M)
    for start in range(0, entries, BLOCK_M):
        columns = start + m
        valid = columns < entries
        address = key + (batch * entries + columns)[None, :] * RANK + r[:, None]
        k = tl.load(address, mask=valid[None, :] & (r[:, None] < RANK), other=0.0)
        factor = tl.load(key_factor + batch * entries + columns, mask=valid, other=0.0)
        v = _load_rows(value, batch * entries, columns, valid, first, STRIDE, BLOCK_C)
        logits = tl.dot(q, k, input_precision=PRECISION) * factor[None, :]
        if not FULL:
            logits = tl.where(valid[None, :], logits, float("-inf"))
        # Strictly greater, and the least place of a block: on ties the first entry stays. A row without a place, which
        # is one of NaN, keeps what it has, so the category stays in range.
        peak = tl.max(logits, axis=1)
        place = tl.min(tl.where(logits == peak[:, None], m[None, :], BLOCK_M), axis=1)
        best = tl.where((peak > highest) & (place < BLOCK_M), start + place, best)
        peak = tl.maximum(highest, peak)
        weights = tl.exp2(logits * q_factor[:, None] - (peak * q_factor)[:, None])
        decay = tl.exp2((highest - peak) * q_factor)
        total = total * decay + tl.sum(weights, axis=1)
        attended = tl.dot(weights.to(v.dtype), v, attended * decay[:, None], input_precision="ieee")
        highest = peak

    c = first + tl.arange(0, BLOCK_C)
    # One wide address, and places of 32 bits from there: a wide one for every value would not fit the registers.
    base = (batch * tokens + tl.program_id(0).to(tl.int64) * BLOCK_N) * CHANNELS
    place = tl.arange(0, BLOCK_N)[:, None] * CHANNELS + c
    mask = row_valid[:, None] & (c < CHANNELS)
    attended = attended / total[:, None]
    if shortcut is not None:
        attended = tl.load(shortcut + base + place, mask=mask, other=0.0).to(tl.float32) + gain * attended
    tl.store(output + base + place, attended.to(output.dtype.element_ty), mask=mask)
    if first == 0:
        tl.store(category + batch * tokens + rows, best.to(tl.int64), mask=row_valid)
        tl.store(log_sum + batch * tokens + rows, (highest * q_factor + tl.log2(total)) * _LN_2, mask=row_valid)


@triton.jit
def _query_backward(
    query, key, value, scale, output, log_sum, grad_output, delta, grad_query, tokens, entries,
    RANK: tl.constexpr, CHANNELS: tl.constexpr, PER_ENTRY: tl.constexpr, PRECISION: tl.constexpr,
    GRAD_PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradient of the query; stores δ = Σ_c grad_output·output for :func:`_key_backward` on the way."""
    batch = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_valid = rows < tokens
    q, q_inverse = _load_query(query, batch * tokens, rows, row_valid, RANK, BLOCK_R)
    lse = tl.load(log_sum + batch * tokens + rows, mask=row_valid, other=float("inf"))
    d = tl.zeros((BLOCK_N,), tl.float32)
    for first in range(0, CHANNELS, BLOCK_C):
        g = _load_rows(grad_output, batch * tokens, rows, row_valid, first, CHANNELS, BLOCK_C)
        o = _load_rows(output, batch * tokens, rows, row_valid, first, CHANNELS, BLOCK_C)
        d += tl.sum(g.to(tl.float32) * o.to(tl.float32), axis=1)
    tl.store(delta + batch * tokens + rows, d, mask=row_valid)

    grad = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)  # of the normalised query
    for start in range(0, entries, BLOCK_M):
        columns = start + tl.arange(0, BLOCK_M)
        column_valid = columns < entries
        grad_weights = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
        for first in range(0, CHANNELS, BLOCK_C):
            g = _load_rows(grad_output, batch * tokens, rows, row_valid, first, CHANNELS, BLOCK_C)
            v = _load_rows(value, batch * entries, columns, column_valid, first, CHANNELS, BLOCK_C)
            grad_weights = tl.dot(g, tl.trans(v), grad_weights, input_precision="ieee")
        k, k_inverse, factor = _load_key(key, scale, batch * entries, columns, column_valid, RANK, PER_ENTRY, BLOCK_R)
        cosine = tl.dot(q, k, input_precision=PRECISION) * q_inverse[:, None] * k_inverse[None, :]
        weights = tl.where(column_valid[None, :], tl.exp(cosine * factor[None, :] - lse[:, None]), 0.0)
        grad_logits = weights * (grad_weights - d[:, None])
        unit_key = k.to(tl.float32) * k_inverse[None, :]
        grad = tl.dot(grad_logits * factor[None, :], tl.trans(unit_key), grad, input_precision=GRAD_PRECISION)

    unit = q.to(tl.float32) * q_inverse[:, None]
    # A row shorter than eps was divided by eps, a constant: no projection there.
    along = tl.where(q_inverse < 1.0 / _EPS, tl.sum(unit * grad, axis=1), 0.0)
    grad = (grad - unit * along[:, None]) * q_inverse[:, None]
    r = tl.arange(0, BLOCK_R)
    address = grad_query + (batch * tokens + rows)[:, None] * RANK + r
    tl.store(address, grad.to(grad_query.dtype.element_ty), mask=row_valid[:, None] & (r < RANK))


@triton.jit
def _key_backward(
    query, key, value, scale, log_sum, grad_output, delta, grad_key, tokens, entries, share,
    RANK: tl.constexpr, CHANNELS: tl.constexpr, PER_ENTRY: tl.constexpr, PRECISION: tl.constexpr,
    GRAD_PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Σ grad_logits · unit query over ``share`` tokens, for a block of entries.

    The partial sums of this kernel and the next go to (splits, b, M, ·) float32 and are added outside: no atomics, the
    same bits every time. All maps here are (M, N), so that none is transposed on its way into a product.
    """
    split, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    columns = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column_valid = columns < entries
    k, k_inverse, factor = _load_key(key, scale, batch * entries, columns, column_valid, RANK, PER_ENTRY, BLOCK_R)
    k = tl.trans(k)
    total = tl.zeros((BLOCK_M, BLOCK_R), tl.float32)
    for offset in range(0, share, BLOCK_N):
        rows = split * share + offset + tl.arange(0, BLOCK_N)
        row_valid = rows < tokens
        grad_weights = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for first in range(0, CHANNELS, BLOCK_C):
            g = _load_rows(grad_output, batch * tokens, rows, row_valid, first, CHANNELS, BLOCK_C)
            v = _load_rows(value, batch * entries, columns, column_valid, first, CHANNELS, BLOCK_C)
            grad_weights = tl.dot(v, tl.trans(g), grad_weights, input_precision="ieee")
        q, q_inverse = _load_query(query, batch * tokens, rows, row_valid, RANK, BLOCK_R)
        lse = tl.load(log_sum + batch * tokens + rows, mask=row_valid, other=float("inf"))
        d = tl.load(delta + batch * tokens + rows, mask=row_valid, other=0.0)
        cosine = tl.dot(k, tl.trans(q), input_precision=PRECISION) * k_inverse[:, None] * q_inverse[None, :]
        grad_logits = tl.exp(cosine * factor[:, None] - lse[None, :]) * (grad_weights - d[None, :])
        unit_query = q.to(tl.float32) * q_inverse[:, None]
        total = tl.dot(grad_logits, unit_query, total, input_precision=GRAD_PRECISION)

    r = tl.arange(0, BLOCK_R)
    address = grad_key + ((split * tl.num_programs(2) + batch) * entries + columns)[:, None] * RANK + r
    tl.store(address, total, mask=column_valid[:, None] & (r < RANK))


@triton.jit
def _value_backward(
    query, key, scale, log_sum, grad_output, grad_value, tokens, entries, share,
    RANK: tl.constexpr, CHANNELS: tl.constexpr, PER_ENTRY: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Σ weights · grad_output over ``share`` tokens, for a block of entries and of channels."""
    split, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    channel_blocks = tl.cdiv(CHANNELS, BLOCK_C)
    first = tl.program_id(0) % channel_blocks * BLOCK_C
    columns = tl.program_id(0) // channel_blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    column_valid = columns < entries
    k, k_inverse, factor = _load_key(key, scale, batch * entries, columns, column_valid, RANK, PER_ENTRY, BLOCK_R)
    k = tl.trans(k)
    total = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for offset in range(0, share, BLOCK_N):
        rows = split * share + offset + tl.arange(0, BLOCK_N)
        row_valid = rows < tokens
        q, q_inverse = _load_query(query, batch * tokens, rows, row_valid, RANK, BLOCK_R)
        g = _load_rows(grad_output, batch * tokens, rows, row_valid, first, CHANNELS, BLOCK_C)
        lse = tl.load(log_sum + batch * tokens + rows, mask=row_valid, other=float("inf"))
        cosine = tl.dot(k, tl.trans(q), input_precision=PRECISION) * k_inverse[:, None] * q_inverse[None, :]
        weights = tl.exp(cosine * factor[:, None] - lse[None, :])
        total = tl.dot(weights.to(g.dtype), g, total, input_precision="ieee")

    c = first + tl.arange(0, BLOCK_C)
    address = grad_value + ((split * tl.num_programs(2) + batch) * entries + columns)[:, None] * CHANNELS + c
    tl.store(address, total, mask=column_valid[:, None] & (c < CHANNELS))


def _constants(query: Tensor) -> dict[str, Any]:
    """Compile-time arguments that all kernels share."""
    return {
        "RANK": query.shape[-1],
        "PRECISION": dot_precision(query.dtype),
        "BLOCK_R": power_of_two(query.shape[-1]),
        "num_stages": 2,
    }


def _forward_constants(query: Tensor, value: Tensor, channels: int) -> dict[str, Any]:
    """Every warp has 16 rows of its own where registers allow: warps that share rows do their softmax each."""
    wide = value.dtype == torch.float32
    entries, stride = value.shape[1:]
    block = 32 if wide else 64
    return {
        **_constants(query),
        "CHANNELS": channels,
        "STRIDE": stride,
        "FULL": entries % block == 0,
        # Rows of channels that are no whole vectors are written value by value, which takes registers.
        "BLOCK_N": 64 if wide or channels % 8 or not multiplies_in_warpgroups() else 128,
        "BLOCK_M": block,
        "BLOCK_C": min(power_of_two(channels), 128 if wide else 256),
        "num_warps": 4 if wide else 8,
    }


def _backward_constants(query: Tensor, value: Tensor, scale: Tensor) -> dict[str, Any]:
    """A block takes at most 128 channels of half inputs, half as many of float32."""
    wide = value.dtype == torch.float32
    side = 32 if wide else 64
    return {
        **_constants(query),
        "CHANNELS": value.shape[-1],
        "PER_ENTRY": scale.numel() > 1,
        "BLOCK_N": side,
        "BLOCK_M": side,
        "BLOCK_C": min(power_of_two(value.shape[-1]), 64 if wide else 128),
        "num_warps": 4,
    }


def key_factors(key: Tensor, scale: Tensor) -> Tensor:
    """(b, M) float32: scale/‖key‖, for contiguous keys (b, M, r) and a float32 scale (1,) or (M,)."""
    batch, entries, rank = key.shape
    factors = torch.empty(batch, entries, dtype=torch.float32, device=key.device)
    with device_of(key):
        _factors[(ceil_div(batch * entries, 64),)](
            key, scale, factors, batch * entries, entries,
            RANK=rank, PER_ENTRY=scale.numel() > 1, BLOCK_M=64, BLOCK_R=power_of_two(rank), num_warps=4,
        )  # fmt: skip
    return factors


def aligned(rows: Tensor) -> Tensor:
    """``rows`` (..., C), contiguous, with zero channels that make the length of a row a multiple of 16 bytes.

    They load in whole vectors. Zeros change neither products nor norms.
    """
    return F.pad(rows, (0, -rows.shape[-1] % (16 // rows.element_size()))).contiguous()


def look_up(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    factors: Tensor,
    output: Tensor,
    shortcut: Tensor | None = None,
    gain: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """``output``, the category (b, n) and log-sum-exp of the logits (b, n).

    Args:
        query, key, value: as in :func:`atd.ops.dictionary_attention`, contiguous and best :func:`aligned`.
        factors: of :func:`key_factors`.
        output: (b, n, C), contiguous, written to; ``value`` may have more channels, of zeros.
        shortcut: (b, n, C), contiguous, to which ``gain`` times the values are added; may be ``output``. None for the
            values alone.
    """
    batch, tokens, channels = output.shape
    category = torch.empty(batch, tokens, dtype=torch.int64, device=query.device)
    log_sum = torch.empty(batch, tokens, dtype=torch.float32, device=query.device)
    with device_of(query):
        constants = _forward_constants(query, value, channels)
        channel_blocks = ceil_div(channels, constants["BLOCK_C"])
        _forward[(ceil_div(tokens, constants["BLOCK_N"]), channel_blocks, batch)](
            query, key, value, factors, shortcut, output, category, log_sum, gain, tokens, key.shape[1], **constants
        )
    return output, category, log_sum


@torch.library.custom_op("atd::dictionary_attention", mutates_args=())
def _dictionary_attention(query: Tensor, key: Tensor, value: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output (b, n, C), category (b, n), log-sum-exp of the logits (b, n)."""
    output = value.new_empty(*query.shape[:2], value.shape[-1])
    query, key = aligned(query), aligned(key)
    return look_up(query, key, aligned(value), key_factors(key, scale.contiguous()), output)


@_dictionary_attention.register_fake
def _(query, key, value, scale):
    batch, tokens, _ = query.shape
    return (
        value.new_empty(batch, tokens, value.shape[-1]),
        query.new_empty(batch, tokens, dtype=torch.int64),
        query.new_empty(batch, tokens, dtype=torch.float32),
    )


@torch.library.custom_op("atd::dictionary_attention_backward", mutates_args=())
def _dictionary_attention_backward(
    query: Tensor, key: Tensor, value: Tensor, scale: Tensor, output: Tensor, log_sum: Tensor, grad_output: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and scale."""
    narrow = query.shape[-1], value.shape[-1]
    query, key, value, output, grad_output = (aligned(rows) for rows in (query, key, value, output, grad_output))
    scale = scale.contiguous()
    batch, tokens, rank = query.shape
    entries, channels = value.shape[1:]
    constants = _backward_constants(query, value, scale)
    precision = dot_precision(value.dtype)
    rows = constants["BLOCK_N"]
    share = max(8, ceil_div(ceil_div(tokens, rows), 32)) * rows  # at most 32 partial sums, of 8 blocks or more
    splits = ceil_div(tokens, share)
    entry_blocks = ceil_div(entries, constants["BLOCK_M"])
    channel_blocks = ceil_div(channels, constants["BLOCK_C"])
    delta = torch.empty_like(log_sum)
    grad_query = torch.empty_like(query)
    unit_grads = torch.empty(splits, batch, entries, rank, dtype=torch.float32, device=query.device)
    value_grads = torch.empty(splits, batch, entries, channels, dtype=torch.float32, device=query.device)
    with device_of(query):
        _query_backward[(ceil_div(tokens, rows), batch)](
            query, key, value, scale, output, log_sum, grad_output, delta, grad_query, tokens, entries,
            GRAD_PRECISION=precision, **constants,
        )  # fmt: skip
        _key_backward[(entry_blocks, splits, batch)](
            query, key, value, scale, log_sum, grad_output, delta, unit_grads, tokens, entries, share,
            GRAD_PRECISION=precision, **constants,
        )  # fmt: skip
        _value_backward[(entry_blocks * channel_blocks, splits, batch)](
            query, key, scale, log_sum, grad_output, value_grads, tokens, entries, share, **constants
        )
    grad_key, grad_scale = _key_gradients(key, scale, unit_grads.sum(0))
    grad_value = value_grads.sum(0).to(value.dtype)
    gradients = zip((grad_query, grad_key, grad_value), (narrow[0], *narrow), strict=True)
    grad_query, grad_key, grad_value = (gradient[..., :channels].contiguous() for gradient, channels in gradients)
    return grad_query, grad_key, grad_value, grad_scale


def _key_gradients(key: Tensor, scale: Tensor, unit_grad: Tensor) -> tuple[Tensor, Tensor]:
    """From Σ_i grad_logits_ij · unit query_i to the gradients of key_j and of the scale."""
    wide = key.float()
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    unit = F.normalize(wide, dim=-1)
    along = (unit * unit_grad).sum(dim=-1, keepdim=True)
    grad_scale = along.sum(0).view(-1)
    grad_unit = torch.where(norm > _EPS.value, unit_grad - unit * along, unit_grad) * scale[:, None]
    grad_key = grad_unit / norm.clamp_min(_EPS.value)
    return grad_key.to(key.dtype), grad_scale if scale.numel() > 1 else grad_scale.sum().view(1)


@_dictionary_attention_backward.register_fake
def _(query, key, value, scale, output, log_sum, grad_output):
    gradients = query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)
    return *gradients, scale.new_empty(scale.shape, dtype=torch.float32)


def _setup_context(ctx, inputs, output) -> None:
    attended, category, log_sum = output
    ctx.mark_non_differentiable(category, log_sum)
    ctx.save_for_backward(*inputs, attended, log_sum)


def _backward(ctx, grad_output, _grad_category, _grad_log_sum):
    return torch.ops.atd.dictionary_attention_backward(*ctx.saved_tensors, grad_output)


_dictionary_attention.register_autograd(_backward, setup_context=_setup_context)


def dictionary_attention(query: Tensor, key: Tensor, value: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`atd.ops.dictionary_attention` for what :func:`atd.ops.kernels.limits.refuses` does not."""
    common = torch.promote_types(query.dtype, key.dtype)
    output, category, _ = _dictionary_attention(
        query.to(common), key.to(common), autocast(value), logit_scale.to(torch.float32)
    )
    return output, category
