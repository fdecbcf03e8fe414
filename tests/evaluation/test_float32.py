"""Whatever a process allows, by torch's older or newer names: none of it while scores are computed, all of it after."""

import subprocess
import sys

import pytest
import torch

# Reads every choice, those that torch refuses to say included.
SCRIPT = """
import torch
def state():
    found = {}
    for name, read in {
        "cudnn": lambda: torch.backends.cudnn.allow_tf32,
        "products": torch.get_float32_matmul_precision,
        "cublas": lambda: torch.backends.cuda.matmul.allow_tf32,
        "conv": lambda: torch.backends.cudnn.conv.fp32_precision,
        "matmul": lambda: torch.backends.cuda.matmul.fp32_precision,
        "onednn": lambda: torch.backends.mkldnn.matmul.fp32_precision,
    }.items():
        try:
            found[name] = read()
        except (RuntimeError, AttributeError) as error:
            found[name] = type(error).__name__
    return found
CHOICE
from atd.evaluation.float32 import full_float32
before = state()
with full_float32():
    inside = state()
assert state() == before, (before, state())
old = {"cudnn": False, "products": "highest", "cublas": False}
assert {key: inside[key] for key in old} == old, inside
if hasattr(torch.backends.cudnn, "conv"):
    assert [inside[key] for key in ("conv", "matmul", "onednn")] == ["ieee"] * 3, inside
"""
CHOICES = ["torch.set_float32_matmul_precision('medium')"]
if hasattr(torch.backends.cudnn, "conv"):  # torch >= 2.9
    CHOICES += ["torch.backends.fp32_precision = 'tf32'", "torch.backends.cudnn.conv.fp32_precision = 'ieee'"]


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
def test_precision_is_full_inside_and_as_before_outside(choice):
    """In a process of its own: the newer names leave the older ones unreadable for good."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT.replace("CHOICE", choice)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
