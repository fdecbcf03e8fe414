"""Dictionary refinement of the CVPR 2024 network: each layer hands a dictionary adapted to the image to the next.

CVPR 2024, section 3.2 (equation 6): the columns of the token-to-dictionary attention map, normalised over the tokens,
weight the layer's output into M new entries that are mixed with the old ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

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


def _reference(query, key, logit_scale, tokens, dictionary, norm_weight, norm_bias, sigma) -> Tensor:
    attention = torch.softmax(cosine_logits(query, key, logit_scale), dim=-1)
    wide = attention.dtype
    columns = attention.transpose(-2, -1)  # (b, M, n)
    variance, mean = torch.var_mean(columns, dim=-1, keepdim=True, correction=0)
    normalised = (columns - mean) * torch.rsqrt(variance + _NORM_EPS)
    normalised = normalised * norm_weight.to(wide)[:, None] + norm_bias.to(wide)[:, None]
    return _mix(dictionary, exact_matmul(torch.softmax(normalised, dim=-1), tokens.to(wide)), sigma)


def _streamed(query, key, logit_scale, tokens, dictionary, norm_weight, norm_bias, sigma) -> Tensor:
    """Two passes over slices of tokens: column statistics first, then the weighted sum; no (n, M) map is kept."""
    batch, count, _ = query.shape
    entries = key.shape[1]
    wide = wide_dtype(query)
    step = slice_length(query, entries)
    if count <= step or torch.compiler.is_compiling() or torch.is_grad_enabled():
        return _reference(query, key, logit_scale, tokens, dictionary, norm_weight, norm_bias, sigma)

    def attention_slices():
        for part in query.split(step, dim=1):
            yield torch.softmax(cosine_logits(part, key, logit_scale), dim=-1)

    # Sums in float64: sum of squares minus squared mean cancels digits that float32 does not have.
    total = torch.zeros(batch, entries, dtype=torch.float64, device=query.device)
    squares = torch.zeros_like(total)
    highest = torch.zeros(batch, entries, dtype=wide, device=query.device)
    lowest = torch.ones_like(highest)
    for attention in attention_slices():
        double = attention.double()
        total += double.sum(dim=1)
        squares += (double * double).sum(dim=1)
        highest = torch.maximum(highest, attention.amax(dim=1))
        lowest = torch.minimum(lowest, attention.amin(dim=1))
    mean = total / count
    variance = (squares / count - mean * mean).clamp_min(0)
    slope = torch.rsqrt(variance + _NORM_EPS).to(wide) * norm_weight.to(wide)
    # The bias shifts a whole column and cancels in the softmax over tokens; the peak keeps exp() from overflowing.
    peak = torch.where(slope >= 0, highest, lowest)

    weights = torch.zeros(batch, entries, 1, dtype=wide, device=query.device)
    gathered = torch.zeros(batch, entries, tokens.shape[-1], dtype=wide, device=query.device)
    for attention, part in zip(attention_slices(), tokens.split(step, dim=1), strict=True):
        share = torch.exp((attention - peak[:, None]) * slope[:, None]).transpose(-2, -1)  # (b, M, slice)
        weights += share.sum(dim=-1, keepdim=True)
        gathered += exact_matmul(share, part.to(wide))
    return _mix(dictionary, gathered / weights, sigma)


def _triton():
    # The streamed form is bound by two small products that cuBLAS does well; it serves the Triton backend too.
    return _streamed
