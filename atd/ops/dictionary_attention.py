"""Token-dictionary cross-attention: every token looks its texture up in a small learned dictionary.

CVPR 2024, section 3.2 (equations 4 and 5); TPAMI 2026, section 3.2. One pass yields the attended values and the
category of every token, which the category attention and the feed-forward network use.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from atd.ops.backend import pick
from atd.ops.kernels.limits import refuses
from atd.ops.native.dictionary_attention import dictionary_attention as native
from atd.ops.precision import exact_matmul, wide_dtype
from atd.ops.shapes import check_dictionary

# Attention maps are formed in slices of this size: on a CPU they stay in a core's own cache, on a card they are large
# enough to fill it and small beside the features.
_CPU_CHUNK_BYTES = 1 << 20
_CARD_CHUNK_BYTES = 64 << 20
_ARGMAX_BLOCK = 32


def dictionary_attention(query: Tensor, key: Tensor, value: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine cross-attention of n tokens to M dictionary entries, and each token's category.

    ``logits = normalise(query) · normalise(key)ᵀ · logit_scale``; ``output = softmax(logits) · value``;
    ``category = argmax(logits)``, the first index on ties. Logits are formed in float32 for float16, bfloat16 and
    float32 inputs and in float64 for float64, whatever autocast or TF32 settings are in force, so that a category does
    not depend on them.

    Args:
        query: (b, n, r), floating point, not yet normalised.
        key: (b, M, r), not yet normalised.
        value: (b, M, C).
        logit_scale: (1,) or (M,): the factor of all logits (TPAMI) or of each entry's logits (CVPR).

    Returns:
        output (b, n, C) in the dtype of ``value``, and category (b, n), int64 in [0, M).

    Raises:
        ValueError: the shapes do not fit together.
    """
    check_dictionary(query, key, value, logit_scale)
    refused = refuses(query, rank=query.shape[-1])
    implementation = pick(
        query, reference=_reference, fast=_chunked, triton=_triton, native=native, triton_refuses=refused
    )
    return implementation(query, key, value, logit_scale)


def cosine_logits(query: Tensor, key: Tensor, logit_scale: Tensor) -> Tensor:
    """(b, n, M) scaled cosine similarities, in float32 or float64 as :func:`dictionary_attention` promises."""
    wide = wide_dtype(query)
    # F.normalize with eps 1e-12, as published: a zero row stays zero.
    query = F.normalize(query.to(wide), dim=-1)
    key = F.normalize(key.to(wide), dim=-1) * logit_scale.to(wide)[..., None]
    return exact_matmul(query, key.transpose(-2, -1))


def _reference(query: Tensor, key: Tensor, value: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    wide = wide_dtype(query)
    similarity = exact_matmul(F.normalize(query.to(wide), dim=-1), F.normalize(key.to(wide), dim=-1).transpose(-2, -1))
    logits = similarity * logit_scale.to(wide)
    attention = torch.softmax(logits, dim=-1)
    return attention.to(value.dtype) @ value, torch.argmax(logits, dim=-1)


def slice_length(query: Tensor, entries: int) -> int:
    """Tokens per slice, so that a (b, slice, M) map keeps to the chunk size of the device."""
    budget = _CPU_CHUNK_BYTES if query.device.type == "cpu" else _CARD_CHUNK_BYTES
    return max(64, budget // (query.shape[0] * entries * wide_dtype(query).itemsize))


def _chunked(query: Tensor, key: Tensor, value: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """The reference over slices of tokens, so that the (n, M) map never exists as a whole, nor for the gradient."""
    if torch.compiler.is_compiling():  # a graph must not depend on the number of slices
        return _slice(query, key, value, logit_scale)
    recompute = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value, logit_scale))
    function = partial(checkpoint, _slice, use_reentrant=False, preserve_rng_state=False) if recompute else _slice
    step = slice_length(query, key.shape[1])
    slices = [function(part, key, value, logit_scale) for part in torch.split(query, step, dim=1)]
    if len(slices) == 1:
        return slices[0]
    return torch.cat([output for output, _ in slices], dim=1), torch.cat([category for _, category in slices], dim=1)


def _slice(query: Tensor, key: Tensor, value: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    logits = cosine_logits(query, key, logit_scale)
    category = _argmax(logits)
    attention = torch.softmax(logits, dim=-1)
    return attention.to(value.dtype) @ value, category


def _argmax(logits: Tensor) -> Tensor:
    """``logits.argmax(-1)``, the first index on ties; in two steps on a CPU, where amax is vector code."""
    *rows, entries = logits.shape
    if logits.device.type != "cpu" or entries % _ARGMAX_BLOCK:
        return logits.argmax(dim=-1)
    blocks = logits.reshape(-1, _ARGMAX_BLOCK)
    count = entries // _ARGMAX_BLOCK
    block = blocks.amax(dim=-1).view(-1, count).argmax(dim=-1)
    first = torch.arange(0, len(blocks), count, device=logits.device)
    return torch.add(blocks.index_select(0, first + block).argmax(dim=-1), block, alpha=_ARGMAX_BLOCK).view(rows)


def _triton() -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    from atd.ops.kernels.dictionary_attention import dictionary_attention

    return dictionary_attention
