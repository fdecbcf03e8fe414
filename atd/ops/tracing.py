"""Whether a program is being made of an op, and what a program needs where an image at hand does not."""

from __future__ import annotations

import torch
from torch import Tensor


def is_exporting() -> bool:
    """Whether torch.export is making a program."""
    # Not torch.compiler.is_exporting(): torch.compile of some releases (2.7, 2.11) takes it for True. Strict exports of
    # 2.7 leave this one alone; there a card's owner says `with atd.ops.use("torch")`.
    return bool(torch.compiler._is_exporting_flag)  # pyright: ignore[reportPrivateUsage]


def is_traced() -> bool:
    """Whether a program is being made of what runs now, by torch.compile, torch.export or torch.jit."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def fixed_layout(tensor: Tensor) -> Tensor:
    """``tensor`` itself; while a program is exported, a contiguous copy of it.

    The sizes of a program are symbols, as it serves every image. Whether a later reshape of a permuted tensor is a view
    depends on which sizes are 1, and the program would be bound to the answer for the size that it was traced with.
    Copies that nothing needs are dropped by whoever compiles the program.
    """
    return tensor.clone(memory_format=torch.contiguous_format) if is_exporting() else tensor
