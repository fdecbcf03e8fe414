"""Token-dictionary cross-attention without a map of attention in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from atd.ops.native.library import call

# Entries and channels are padded to whole vectors of the widest kind.
_LANES = 16


def dictionary_attention(query: Tensor, key: Tensor, value: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`atd.ops.dictionary_attention` for float32 tensors on the CPU, without gradients."""
    batch, tokens, rank = query.shape
    entries, channels = value.shape[1:]
    key = (F.normalize(key, dim=-1) * logit_scale[..., None]).transpose(1, 2)
    key = F.pad(key, (0, -entries % _LANES)).contiguous()
    value = F.pad(value, (0, -channels % _LANES)).contiguous()
    query = query.contiguous()
    output = query.new_empty(batch, tokens, channels)
    category = torch.empty(batch, tokens, dtype=torch.int64)
    for b in range(batch):
        sizes = (tokens, rank, entries, key.shape[2], channels, value.shape[2])
        call("atd_dictionary_attention", query[b], key[b], value[b], output[b], category[b], *sizes)
    return output, category
