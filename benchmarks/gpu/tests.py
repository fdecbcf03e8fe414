"""The golden networks on the card: outputs that the authors' code gave, against every route in every dtype."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open

from atd.models import ARCHITECTURES
from benchmarks.cases import Variant
from benchmarks.gpu.case import Case, Context, Figures

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
_FAMILIES = {"v1": "ATDCVPR", "v2": "ATD", "u": "ATDU", "real": "ATDReal"}
_LIMIT = {torch.float32: 1e-3}
"""Relative error beyond which a route is wrong. Half precision has none: tests compare it with the reference's own."""


def goldens(context: Context) -> Iterator[Case]:
    paths = sorted({path for name in context.sizes.goldens for path in GOLDEN.glob(f"{name}.safetensors")})
    dtypes = (torch.float32, torch.bfloat16, torch.float16) if context.on_card else (torch.float32,)
    for path in paths:
        for dtype in dtypes:
            for backend in ("reference", "torch", "triton"):
                variant = Variant(backend, dtype)
                yield Case(path.stem, "", variant.label, partial(compare, context, path, variant))


def compare(context: Context, path: Path, variant: Variant) -> Figures:
    """Relative distance of the output from that of the authors' code in float64."""
    if variant.backend == "triton":
        context.need_card("a golden network on the Triton kernels")  # it takes minutes in the interpreter
    with safe_open(path, "pt") as file:
        architecture, config = file.metadata()["arch"], json.loads(file.metadata()["config"])
        values = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is not iterable)
    exact = values["output_float64"]
    model = ARCHITECTURES[_FAMILIES[architecture]](**config).eval()
    weights = {key.removeprefix("state_dict."): value for key, value in values.items() if key.startswith("state_dict.")}
    model.load_state_dict(weights, strict=True)
    model.to(context.device, variant.dtype)
    with variant.active(context.device), torch.no_grad():
        output = model(values["input"].to(context.device, torch.float32)).cpu().double()
    error = float((output - exact).norm() / exact.norm())
    yield "relative_error", error
    if not error < _LIMIT.get(variant.dtype, float("inf")):
        yield "", ValueError(f"{error:.3g} from the golden output, more than {_LIMIT[variant.dtype]}")


STEPS = {"goldens": goldens}
