"""A process that restores file after file holds no more in the end than in the beginning; four share a folder."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_networks import small

pytest.importorskip("cv2", reason="OpenCV is not installed")
pytest.importorskip("pyvips", reason="libvips is not installed")

from attacks.soak import restore_many

import atd

LONG = bool(os.environ.get("ATD_SOAK"))
"""Whether to take the time for thousands of files; CONTRIBUTING.md says when that was done last."""
MEGABYTES = 10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_descriptors_and_memory_stay_flat(tmp_path):
    good, bad = (2000, 500) if LONG else (300, 100)
    logging.disable(logging.CRITICAL)  # pytest would keep what is logged, which is growth of its own
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start, end = restore_many(tmp_path, good, bad, warm_up=500 if LONG else 250)
    finally:
        logging.disable(logging.NOTSET)
    # libvips keeps a few files open until it needs their place.
    assert end.descriptors <= start.descriptors + 8
    assert end.bytes - start.bytes <= MEGABYTES * 1_000_000


@pytest.mark.slow
def test_four_processes_on_one_folder_give_every_result_whole(tmp_path):
    """They restore the same files at the same time: some are done twice, none is left out or mixed."""
    network = small("ATD")
    network.save_pretrained(tmp_path / "tiny")
    (tmp_path / "in").mkdir()
    for number in range(40 if LONG else 8):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    command = [sys.executable, "-m", "atd", "restore", "-i", "in", "-o", "out", "--model", "tiny", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    results = sorted((tmp_path / "out").iterdir())
    assert len(results) == len(list((tmp_path / "in").iterdir()))
    loaded = atd.load(tmp_path / "tiny")
    for path in results:
        expected = atd.restore(loaded, tmp_path / "in" / path.name.replace("_tiny", ""), device="cpu")
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(expected))
