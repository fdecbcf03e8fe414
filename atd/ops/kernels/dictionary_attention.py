# pyright: basic
"""Dictionary cross-attention in one pass: cosine logits, online softmax, product with the values, category.

The (n, M) map lives in registers, a block at a time, forward and backward. Rows are normalised after the product: for
half inputs the tensor cores then multiply the values as given, exactly, and add them in float32, so a category is as
exact as in float32 arithmetic and costs what half arithmetic costs.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportIndexIssue=false
# Inside @triton.jit Python's types mean something else.

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from atd.ops.kernels.launch import autocast, ceil_div, device_of, dot_precision, power_of_two

_EPS = tl.constexpr(1e-12)  # of F.normalize


@triton.jit
def _load_query(query, base, rows, valid, RANK: tl.constexpr, BLOCK_R: tl.constexpr):
    """Query rows (N, R) and 1/‖row‖ (N,)."""
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
def _forward(
    query, key, value, scale, output, category, log_sum, tokens, entries,
    RANK: tl.constexpr, CHANNELS: tl.constexpr, PER_ENTRY: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    first, batch = tl.program_id(1) * BLOCK_C, tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_valid = rows < tokens
    q, q_inverse = _load_query(query, batch * tokens, rows, row_valid, RANK, BLOCK_R)

    highest = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    best = tl.zeros((BLOCK_N,), tl.int32)
    attended = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(0, entries, BLOCK_M):
        columns = start + tl.arange(0, BLOCK_M)
        column_valid = columns < entries
        k, k_inverse, factor = _load_key(key, scale, batch * entries, columns, column_valid, RANK, PER_ENTRY, BLOCK_R)
        v = _load_rows(value, batch * entries, columns, column_valid, first, CHANNELS, BLOCK_C)
        cosine = tl.dot(q, k, input_precision=PRECISION) * q_inverse[:, None] * k_inverse[None, :]
        logits = tl.where(column_valid[None, :], cosine * factor[None, :], float("-inf"))
        # Strictly greater: on ties the first entry stays. NaN is never greater, so the category stays in range.
        peak, place = tl.max(logits, axis=1, return_indices=True)
        best = tl.where(peak > highest, start + place, best)
        peak = tl.maximum(highest, peak)
        weights = tl.exp(logits - peak[:, None])
        decay = tl.exp(highest - peak)
        total = total * decay + tl.sum(weights, axis=1)
        attended = tl.dot(weights.to(v.dtype), v, attended * decay[:, None], input_precision="ieee")
        highest = peak

    c = first + tl.arange(0, BLOCK_C)
    address = output + (batch * tokens + rows)[:, None] * CHANNELS + c
    attended = (attended / total[:, None]).to(output.dtype.element_ty)
    tl.store(address, attended, mask=row_valid[:, None] & (c < CHANNELS))
    if first == 0:
        tl.store(category + batch * tokens + rows, best.to(tl.int64), mask=row_valid)
        tl.store(log_sum + batch * tokens + rows, highest + tl.log(total), mask=row_valid)


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


def _constants(query: Tensor, value: Tensor, scale: Tensor, widest: int) -> dict[str, Any]:
    """Compile-time arguments; a block takes at most ``widest`` channels of half inputs, half as many of float32."""
    wide = value.dtype == torch.float32
    side = 32 if wide else 64
    return {
        "RANK": query.shape[-1],
        "CHANNELS": value.shape[-1],
        "PER_ENTRY": scale.numel() > 1,
        "PRECISION": dot_precision(query.dtype),
        "BLOCK_N": side,
        "BLOCK_M": side,
        "BLOCK_R": power_of_two(query.shape[-1]),
        "BLOCK_C": min(power_of_two(value.shape[-1]), widest // 2 if wide else widest),
        "num_warps": 8 if widest > 128 and value.shape[-1] > 64 else 4,
        "num_stages": 2,
    }


@torch.library.custom_op("atd::dictionary_attention", mutates_args=())
def _dictionary_attention(query: Tensor, key: Tensor, value: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output (b, n, C), category (b, n), log-sum-exp of the logits (b, n)."""
    query, key, value, scale = (tensor.contiguous() for tensor in (query, key, value, scale))
    batch, tokens, _ = query.shape
    output = value.new_empty(batch, tokens, value.shape[-1])
    category = torch.empty(batch, tokens, dtype=torch.int64, device=query.device)
    log_sum = torch.empty(batch, tokens, dtype=torch.float32, device=query.device)
    constants = _constants(query, value, scale, widest=256)
    channel_blocks = ceil_div(value.shape[-1], constants["BLOCK_C"])
    with device_of(query):
        _forward[(ceil_div(tokens, constants["BLOCK_N"]), channel_blocks, batch)](
            query, key, value, scale, output, category, log_sum, tokens, key.shape[1], **constants
        )
    return output, category, log_sum


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
    query, key, value, scale, grad_output = (t.contiguous() for t in (query, key, value, scale, grad_output))
    batch, tokens, rank = query.shape
    entries, channels = value.shape[1:]
    constants = _constants(query, value, scale, widest=128)
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
    return grad_query, grad_key, value_grads.sum(0).to(value.dtype), grad_scale


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
