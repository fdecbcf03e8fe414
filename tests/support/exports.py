"""What the tests of exported files share: when they can run, and small networks of every family with other outputs."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from small_networks import small
from torch import Tensor

from atd.export.program import OLDEST_EXPORTING_TORCH
from atd.models import ARCHITECTURES, RestorationModel

GOLDEN = {"ATD": "atd_light_sr_x4", "ATDCVPR": "atd_cvpr_light_sr_x3", "ATDReal": "atd_real_x4"}
"""Small networks with outputs in float64 that the authors' code gave."""

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
NEWER_TORCH = tuple(map(int, torch.__version__.split(".")[:2])) >= OLDEST_EXPORTING_TORCH

needs_onnx = pytest.mark.skipif(not ONNX, reason="ONNX Runtime is not installed")
exports_every_size = pytest.mark.skipif(not NEWER_TORCH, reason="this torch exports no network for every size")


def golden_network(folder: Path, family: str) -> tuple[RestorationModel, Tensor, Tensor]:
    """A golden network of `family` in float32, its input, and its output in float64."""
    with safe_open(folder / f"{GOLDEN[family]}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is not iterable)
    expected, image = tensors.pop("output_float64"), tensors.pop("input")
    model = ARCHITECTURES[family](**config).eval()
    model.load_state_dict({key.removeprefix("state_dict."): value for key, value in tensors.items()}, strict=True)
    return model, image, expected


def network(folder: Path, family: str) -> RestorationModel:
    """A small network of `family`: a golden one, or for ATD-U, whose golden ones are too deep, one with shifts."""
    return small("ATDU", depths=[1, 2]) if family == "ATDU" else golden_network(folder, family)[0]
