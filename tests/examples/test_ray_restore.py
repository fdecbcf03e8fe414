"""examples/ray_restore.py on a local Ray: a folder with a bad file, by a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import atd

pytest.importorskip("ray", reason="Ray is not installed: pip install 'atd-restoration[ray]'")
ROOT = Path(__file__).parents[2]


def test_a_folder_on_local_ray(tmp_path):
    torch.manual_seed(0)
    model = atd.ATD(upscale=2, embed_dim=12, depths=[1], num_heads=[2], window_size=8, category_size=16, num_tokens=8)
    model.save_pretrained(tmp_path / "tiny")
    (tmp_path / "in" / "sub").mkdir(parents=True)
    images = {"a.png": 0, "sub/b.png": 1}
    for name, seed in images.items():
        pixels = np.random.default_rng(seed).integers(0, 256, (14, 20, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    command = [sys.executable, str(ROOT / "examples" / "ray_restore.py"), "-i", "in", "-o", "out", "--recursive"]
    done = subprocess.run(
        [*command, "--model", str(tmp_path / "tiny")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert "2 restored, 0 skipped, 1 failed" in done.stdout, done.stderr[-2000:]
    assert done.returncode == 1
    assert "bad.png is not an image" in done.stderr
    loaded = atd.load(tmp_path / "tiny")
    for name in images:
        result = np.asarray(Image.open(tmp_path / "out" / name.replace(".png", "_tiny.png")))
        assert np.array_equal(result, np.asarray(atd.restore(loaded, tmp_path / "in" / name)))
