"""What a type checker knows of `restore`: pyright accepts what a user may write, and refuses what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RIGHT = """
from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import atd

def names(bytes8: NDArray[np.uint8], floats: NDArray[np.float32], tensor: Tensor, network: torch.nn.Module) -> None:
    assert_type(atd.restore("name", "photo.png"), Image.Image)
    assert_type(atd.restore(network, Path("photo.png"), tile=None), Image.Image)
    assert_type(atd.restore(network, Image.new("RGB", (4, 4)), progress=True), Image.Image)
    assert_type(atd.restore(network, bytes8, tile=64, dtype=torch.float16), NDArray[np.uint8])
    assert_type(atd.restore(network, floats, weights="bundled", device="cpu"), NDArray[np.float32])
    assert_type(atd.restore(network, tensor, outscale=2.5, self_ensemble=True, batch_size=2), Tensor)
    assert_type(atd.restore_file(network, "a.png", Path("b.png")), Path)

def tell(progress: atd.TileProgress) -> None: ...

atd.restore("name", "photo.png", progress=tell)
"""
WRONG = """
import atd

atd.restore("name", 3)
atd.restore("name", "photo.png", tiles=3)
atd.restore("name", "photo.png", tile="small")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("text", "errors"), [(RIGHT, 0), (WRONG, 3)])
def test_pyright_knows_the_result_types_of_restore(tmp_path, text, errors):
    pytest.importorskip("pyright")
    (tmp_path / "user.py").write_text(text)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)], "include": ["user.py"]}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    lines = {diagnostic["range"]["start"]["line"] for diagnostic in report["generalDiagnostics"]}
    assert len(lines) == errors, report["generalDiagnostics"]
