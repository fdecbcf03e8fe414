"""Numbers that no result can have: refused in a sentence, at once."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from restoration_networks import Nearest

from atd.errors import InputError, NotEnoughDiskError
from atd.restoration import memory
from atd.restoration.api import restore_file

IMPOSSIBLE = ["inf", "nan", "0", "-1", "1e308", "100000"]


@pytest.mark.parametrize("outscale", IMPOSSIBLE)
def test_impossible_outscale_is_refused(tmp_path, outscale):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in.png")
    with pytest.raises(InputError, match="expected outscale"):
        restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.png", outscale=float(outscale))


@pytest.mark.parametrize("outscale", ["2", [2], 2j])
def test_an_outscale_that_is_no_number_is_refused(tmp_path, outscale):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in.png")
    with pytest.raises(InputError, match="expected outscale"):
        restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.png", outscale=outscale)


@pytest.mark.slow
@pytest.mark.parametrize("outscale", ["inf", "1e308"])
def test_the_command_refuses_an_impossible_outscale_and_does_not_hang(tmp_path, outscale):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in.png")
    arguments = ["-i", "in.png", "-o", "out.png", "--model", "atd_light_sr_x4", "--weights", "none.safetensors"]
    done = subprocess.run(
        [sys.executable, "-m", "atd", "restore", *arguments, f"--outscale={outscale}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "outscale" in done.stderr
    assert "Traceback" not in done.stderr


def test_small_needs_are_not_told_as_zero(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in.png")
    monkeypatch.setattr(memory, "free_disk", lambda folder: 100)
    with pytest.raises(NotEnoughDiskError, match=r"needs up to 3\.1 kB of disk, but 0\.1 kB are free"):
        restore_file(Nearest(scale=4), tmp_path / "in.png", tmp_path / "out.png")
