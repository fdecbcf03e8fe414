"""The networks inside the package at full size, minutes each: only where ATD_EXPORT_BUNDLED is set."""

import os

import pytest
import torch
from exports import exports_every_size, needs_onnx

import atd
from atd import registry

pytestmark = [
    needs_onnx,
    exports_every_size,
    pytest.mark.slow,
    pytest.mark.skipif("ATD_EXPORT_BUNDLED" not in os.environ, reason="ATD_EXPORT_BUNDLED is not set"),
    pytest.mark.timeout(3600),
]
BUNDLED = [name for name in registry.list_models() if registry.get(name).bundled]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", BUNDLED)
def test_it_passes_its_report(name, dtype, tmp_path):
    report = atd.export_onnx(name, tmp_path / "net.onnx", weights="bundled", dtype=dtype)
    print(report.table())
    assert report.passed
    assert report.metadata.licence == registry.BUNDLED_LICENCE
