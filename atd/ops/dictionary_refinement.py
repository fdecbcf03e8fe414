"""Dictionary refinement of the CVPR 2024 network: each layer hands a dictionary adapted to the image to the next.

CVPR 2024, section 3.2 (equation 6): the columns of the token-to-dictionary attention map, normalised over the tokens,
weight the layer's output into M new entries that are mixed with the old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atd.ops.backend import pick
from atd.ops.dictionary_attention import cosine_logits, slice_length
from atd.ops.precision import exact_matmul, wide_dtype

_NORM_EPS = 1e-5  # InstanceNorm1d's default, as published


def dictionary_refinement(
    query: Tensor,
    key: Tensor,
    logit_scale: Tensor,
    tokens: Tensor,
    dictionary: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    sigma: Tensor,
) -> Tensor:
    """The refined dictionary ``s·dictionary + (1 − s)·P·tokens`` with ``s = sigmoid(sigma)``.

    ``A = softmax(logits)`` over the M entries as in :func:`dictionary_attention`; ``P`` is the softmax over the n
    tokens of A's columns after instance normalisation (biased variance over n, eps 1e-5). Column statistics are kept in
    float32 or better: the result is sensitive to them.

    Args:
        query: (b, n, r) and key: (b, M, r), as given to :func:`dictionary_attention`.
        logit_scale: (M,).
        tokens: (b, n, C), the layer's output.
        dictionary: (b, M, C).
        norm_weight, norm_bias: (M,), the affine part of the instance normalisation.
        sigma: (M, 1).

    Returns:
        (b, M, C) in the dtype of ``dictionary``.
    """
    implementation = pick(query, reference=_reference, fast=_streamed, triton=_triton)
    return implementation(query, key, logit_scale, tokens, dictionary, norm_weight, norm_bias, sigma)


def _mix(dictionary: Tensor, gathered: Tensor, sigma: Tensor) -> Tensor:
    share = torch.sigmoid(sigma.to(gathered.dtype))
    return (share * dictionary.to(gathered.dtype) + (1 - share) * gathered).to(dictionary.dtype)


def _reference(
    query: Tensor,
    key: Tensor,
    logit_scale: Tensor,
    tokens: Tensor,
    dictionary: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    sigma: Tensor,
) -> Tensor:
    attention = torch.softmax(cosine_logits(query, key, logit_scale), dim=-1)
    wide = attention.dtype
    columns = attention.transpose(-2, -1)  # (b, M, n)
    variance, mean = torch.var_mean(columns, dim=-1, keepdim=True, correction=0)
    normalised = (columns - mean) * torch.rsqrt(variance + _NORM_EPS)
    normalised = normalised * norm_weight.to(wide)[:, None] + norm_bias.to(wide)[:, None]
    return _mix(dictionary, exact_matmul(torch.softmax(normalised, dim=-1), tokens.to(wide)), sigma)


def _streamed(
    query: Tensor,
    key: Tensor,
    logit_scale: Tensor,
    tokens: Tensor,
    dictionary: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    sigma: Tensor,
) -> Tensor:
    """Slices of tokens: column statistics first, then the weighted sum; no (n, M) map is kept, nor for the gradient."""
    # A graph must not depend on the number of slices; and MPS has no float64, which the sums over slices need.
    if torch.compiler.is_compiling() or query.device.type == "mps":
        return _reference(query, key, logit_scale, tokens, dictionary, norm_weight, norm_bias, sigma)
    return _mix(dictionary, _WeightedSum.apply(query, key, logit_scale, tokens, norm_weight, norm_bias), sigma)


class _Columns(NamedTuple):
    """What normalises the columns of the attention map, each (b, 1, M)."""

    mean: Tensor
    inverse_deviation: Tensor
    peak: Tensor
    """Each column's entry of the largest weight; subtracted, it keeps exp() from overflowing."""

    @classmethod
    def measure(cls, query: Tensor, key: Tensor, logit_scale: Tensor, norm_weight: Tensor) -> _Columns:
        batch, count, _ = query.shape
        wide = wide_dtype(query)
        # Sums in float64: sum of squares minus squared mean cancels digits that float32 does not have.
        total = torch.zeros(batch, 1, key.shape[1], dtype=torch.float64, device=query.device)
        squares = torch.zeros_like(total)
        highest = torch.zeros_like(total, dtype=wide)
        lowest = torch.ones_like(highest)
        for rows in _slices(query, key):
            attention = _attention(query[:, rows], key, logit_scale)
            double = attention.double()
            total += double.sum(dim=1, keepdim=True)
            squares += (double * double).sum(dim=1, keepdim=True)
            highest = torch.maximum(highest, attention.amax(dim=1, keepdim=True))
            lowest = torch.minimum(lowest, attention.amin(dim=1, keepdim=True))
        mean = total / count
        variance = (squares / count - mean * mean).clamp_min(0)
        return cls(
            mean.to(wide), torch.rsqrt(variance + _NORM_EPS).to(wide), torch.where(norm_weight >= 0, highest, lowest)
        )

    def weigh(self, attention: Tensor, norm_weight: Tensor) -> Tensor:
        """Weights of the tokens before their division by the column's sum.

        The instance normalisation's bias shifts whole columns and cancels in the softmax over the tokens.
        """
        return torch.exp((attention - self.peak) * (self.inverse_deviation * norm_weight))


def _slices(query: Tensor, key: Tensor) -> Iterator[slice]:
    step = slice_length(query, key.shape[1])
    for start in range(0, query.shape[1], step):
        yield slice(start, start + step)


def _attention(query: Tensor, key: Tensor, logit_scale: Tensor) -> Tensor:
    return torch.softmax(cosine_logits(query, key, logit_scale), dim=-1)


class _WeightedSum(torch.autograd.Function):
    """``P·tokens``, (b, M, C) in float32 or better; both passes form the attention map slice by slice."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        logit_scale: Tensor,
        tokens: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
    ) -> Tensor:
        columns = _Columns.measure(query, key, logit_scale, norm_weight)
        wide = columns.mean.dtype
        sums = torch.zeros_like(columns.mean)
        gathered = torch.zeros(*key.shape[:2], tokens.shape[-1], dtype=wide, device=query.device)
        for rows in _slices(query, key):
            weights = columns.weigh(_attention(query[:, rows], key, logit_scale), norm_weight.to(wide))
            sums += weights.sum(dim=1, keepdim=True)
            gathered += exact_matmul(weights.transpose(-2, -1), tokens[:, rows].to(wide))
        gathered /= sums.transpose(-2, -1)
        ctx.save_for_backward(query, key, logit_scale, tokens, norm_weight, norm_bias, sums, gathered, *columns)
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, logit_scale, tokens, norm_weight, norm_bias, sums, gathered, *columns = ctx.saved_tensors
        columns = _Columns(*columns)
        wide = grad.dtype
        slope = norm_weight.to(wide)
        # Softmax over tokens: its gradient subtracts each column's Σ P·∂P, which is the product of result and gradient.
        column_dots = (grad * gathered).sum(-1)[:, None]

        def differentiate(rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """Attention A, normalised A, P and the gradient of P's logits, each (b, slice, M)."""
            attention = _attention(query[:, rows], key, logit_scale)
            share = columns.weigh(attention, slope) / sums
            grad_share = exact_matmul(tokens[:, rows].to(wide), grad.transpose(-2, -1))
            normalised = (attention - columns.mean) * columns.inverse_deviation
            return attention, normalised, share, share * (grad_share - column_dots)

        # Instance normalisation: of its two corrections the mean of the gradient is zero after a softmax.
        moment = torch.zeros_like(sums)
        for rows in _slices(query, key):
            _, normalised, _, grad_column = differentiate(rows)
            moment += (grad_column * normalised).sum(dim=1, keepdim=True)

        grad_tokens = torch.empty_like(tokens)
        grad_query = torch.empty_like(query)
        grad_key = torch.zeros_like(key, dtype=wide)
        grad_scale = torch.zeros_like(logit_scale, dtype=wide)
        for rows in _slices(query, key):
            attention, normalised, share, grad_column = differentiate(rows)
            grad_tokens[:, rows] = exact_matmul(share, grad).to(tokens.dtype)
            grad_map = (grad_column - normalised * (moment / query.shape[1])) * (columns.inverse_deviation * slope)
            grad_logits = attention * (grad_map - (attention * grad_map).sum(-1, keepdim=True))
            with torch.enable_grad():
                leaves = [x.detach().requires_grad_() for x in (query[:, rows], key, logit_scale)]
                logits = cosine_logits(*leaves)
            part = torch.autograd.grad(logits, leaves, grad_logits)
            grad_query[:, rows] = part[0]
            grad_key += part[1]
            grad_scale += part[2]
        grad_weight = moment.sum(dim=(0, 1)).to(norm_weight.dtype)
        return (
            grad_query,
            grad_key.to(key.dtype),
            grad_scale.to(logit_scale.dtype),
            grad_tokens,
            grad_weight,
            torch.zeros_like(norm_bias),
        )


def _triton() -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    # The streamed form is bound by two small products that cuBLAS does well; it serves the Triton backend too.
    return _streamed
