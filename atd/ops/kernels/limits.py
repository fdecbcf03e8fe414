"""What the Triton kernels can take, and a number they share with the torch path; importable without triton.

An op asks here before it imports or calls a kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_HEAD = 128
"""Channels of a head that the attention kernels hold in registers."""
MAX_RANK = 128
"""Channels of a dictionary query or key."""

FAST_MASK = -10000.0
"""Additive mask between pixels that were not neighbours before the shift. The published -100 leaves weights of e^-100:
far below rounding, but denormal in float32, and CPUs multiply denormals some ten times slower than zeros. The weight of
this value is zero."""


def refuses(tensor: Tensor, *, head: int = 0, rank: int = 0) -> str | None:
    """Why the kernels cannot take a call, in a few words; None where they can.

    Args:
        tensor: the op's first argument, whose dtype is that of the computation.
        head: channels of an attention head.
        rank: channels of dictionary queries and keys.
    """
    if tensor.dtype == torch.float64:
        return "the kernels add in float32; the tensors are float64"
    if head > MAX_HEAD:
        return f"heads have {head} channels; the kernels hold {MAX_HEAD}"
    if rank > MAX_RANK:
        return f"dictionary keys have {rank} channels; the kernels hold {MAX_RANK}"
    return None
