"""The choice of a process to let CUDA reduce float32 products, under torch's older and newer names for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Tensors that are said to be on a card and hold nothing, and a record of the products that are taken of them.
_SCRIPT = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from atd.ops.precision import exact_matmul

class Products(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "mm" in str(func):
            self.dtype = args[0].dtype
        return func(*args, **(kwargs or {}))

def product_in():
    with FakeTensorMode(), Products() as products:
        a = torch.empty(2, 2, device="cuda")
        assert exact_matmul(a, a).dtype == torch.float32
    return products.dtype

@torch.compile(fullgraph=True, backend="eager")
def compiled(a):
    from atd.ops.precision import _products_are_reduced
    return a * 2 if _products_are_reduced() else a + 1

def check(reduced):
    assert product_in() == (torch.float64 if reduced else torch.float32), product_in()
    assert compiled(torch.full((1,), 3.0)).item() == (6 if reduced else 4)

products = torch.backends.cuda.matmul
check(False)
torch.set_float32_matmul_precision("high")
check(True)
torch.set_float32_matmul_precision("highest")
check(False)
products.allow_tf32 = True
check(True)
products.allow_tf32 = False
check(False)
if hasattr(torch.backends.cudnn, "conv"):  # torch >= 2.9
    products.fp32_precision = "tf32"
    check(True)
    try:
        products.allow_tf32
    except RuntimeError:
        pass
    else:
        raise AssertionError("the older name can be read: this test shows nothing")
    products.fp32_precision = "ieee"
    check(False)
    products.fp32_precision = "none"
    torch.backends.fp32_precision = "tf32"
    check(True)
"""


@pytest.mark.slow
def test_products_are_exact_however_tf32_was_asked_for():
    """In a process of its own: the newer names leave the older ones unreadable for good."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "ignore", "-c", _SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
