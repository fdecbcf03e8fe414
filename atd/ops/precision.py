"""The arithmetic that decides categories: never in half precision, never in TF32."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """float64 for a float64 tensor, float32 for every narrower one."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def exact_matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in the inputs' own dtype (float32 or float64), immune to autocast and to TF32.

    TF32 rounds float32 inputs to 10 bits and flips categories. It is a switch of the process, so it cannot be turned
    off for one product in a program with threads; where it is on, the product is taken in float64.
    """
    with torch.autocast(a.device.type, enabled=False):
        if a.is_cuda and a.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
            return (a.double() @ b.double()).float()
        return a @ b
