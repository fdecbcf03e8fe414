"""Scores in float32 mean float32: no TF32 on a card, no bfloat16 inside oneDNN's products on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import torch

Value = TypeVar("Value")


@contextlib.contextmanager
def full_float32() -> Generator[None, None, None]:
    """Compute in true float32 in this block, whatever the process allows, and allow it again afterwards.

    cuDNN takes TF32 for convolutions unless told otherwise; matrix products are reduced where somebody has asked for
    it, as trainings do. torch keeps these choices under two names, the older of which can only be read while the newer
    ones (torch >= 2.9) agree with it: both are set here, and both put back.
    """
    convolutions = _or_none(lambda: torch.backends.cudnn.allow_tf32)
    products = _or_none(torch.get_float32_matmul_precision)
    operators = _operators()
    before: list[str] = [operator.fp32_precision for operator in operators]
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for operator in operators:
        operator.fp32_precision = "ieee"
    try:
        yield
    finally:
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for operator, precision in zip(operators, before, strict=True):
            operator.fp32_precision = precision


def _operators() -> list[Any]:
    """What has a precision of its own under the newer names; nothing before torch 2.9."""
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    if not hasattr(cudnn, "conv"):
        return []
    # Not all are known to torch's type stubs.
    names = ((cudnn, "conv"), (cudnn, "rnn"), (torch.backends.cuda, "matmul"), (mkldnn, "conv"), (mkldnn, "matmul"))
    return [getattr(backend, name) for backend, name in names]


def _or_none(read: Callable[[], Value]) -> Value | None:
    """The choice under its older name; None where the newer ones contradict it, and torch refuses to say."""
    try:
        return read()
    except RuntimeError:
        return None
