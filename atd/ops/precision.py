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
    if torch.is_autocast_enabled(a.device.type):
        with torch.autocast(a.device.type, enabled=False):
            return exact_matmul(a, b)
    if a.is_cuda and a.dtype == torch.float32 and _products_are_reduced():
        return (a.double() @ b.double()).float()
    return a @ b


# torch.compile cannot trace the newer names; it takes the answer as it is while it compiles, and compiles anew when the
# choice has changed, which is among its guards.
@torch.compiler.assume_constant_result  # pyright: ignore[reportUnknownMemberType]  (torch leaves it untyped)
def _products_are_reduced() -> bool:
    """Whether the process lets CUDA take products of float32 in TF32.

    From torch 2.9 on the choice has two names, of which the older cannot be read any more once the newer has been set;
    the newer always can.
    """
    products = torch.backends.cuda.matmul
    if hasattr(torch.backends.cudnn, "conv"):
        return products.fp32_precision not in ("ieee", "none")
    return bool(products.allow_tf32)
