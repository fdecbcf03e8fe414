"""What the launching functions of all kernels share: block sizes, dot precision, the current device, autocast."""

import contextlib
import os
from typing import Any

import torch
from torch import Tensor


def power_of_two(size: int, least: int = 16) -> int:
    """The smallest power of two that holds ``size``; at least 16, the shortest side that tensor cores multiply."""
    return max(least, 1 << (size - 1).bit_length())


def ceil_div(size: int, step: int) -> int:
    """`size` / `step`, rounded up."""
    return (size + step - 1) // step


def dot_precision(dtype: torch.dtype) -> str:
    """``input_precision`` for float32 operands that stand for values of ``dtype``.

    TF32 has the mantissa of float16 and the exponent of float32: it loses nothing that half inputs had. Float32 inputs
    are multiplied as float32.
    """
    return "ieee" if dtype == torch.float32 else "tf32"


def multiplies_in_warpgroups() -> bool:
    """Whether the current card is a Hopper or a server's Blackwell: four warps multiply 64 rows at once, straight from
    shared memory. On others every operand passes through registers, of which fewer are left."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return True
    from triton.runtime import driver  # pyright: ignore[reportMissingTypeStubs]

    active: Any = driver.active
    target = active.get_current_target()
    return target.backend == "cuda" and int(target.arch) // 10 in (9, 10)


def device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Makes the tensor's card the current one: Triton launches there and nowhere else."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def autocast(tensor: Tensor) -> Tensor:
    """``tensor`` in the dtype of the autocast region it is used in, if in one: the rule of SDPA and convolutions.

    ``torch.library.register_autocast`` knows one fixed dtype for all inputs; here the region's own dtype is taken, and
    scales, bias tables and depthwise kernels keep float32, which the kernels read directly.
    """
    device = tensor.device.type
    if torch.is_autocast_enabled(device) and tensor.dtype != torch.float64:
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor
