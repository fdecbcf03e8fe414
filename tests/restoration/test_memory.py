"""The memory estimate against the resident set of a process, and what is planned from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from restoration_networks import Nearest

import atd
from atd.restoration import memory

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measuring the resident set needs Linux")
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize(
    ("name", "side"), [("atd_u_tiny_color_dn", 192), ("atd_light_sr_x4", 192), ("atd_cvpr_light_sr_x4", 192)]
)
def test_a_process_takes_no_more_than_the_estimate(name, side, backend):
    """What a user relies on, in a process of its own. Two threads leave malloc more to keep."""
    command = [sys.executable, "-m", "benchmarks.memory", "--one", name, str(side)]
    environment = {**os.environ, "ATD_BACKEND": backend, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    peak, estimate = (int(value) for value in done.stdout.split()[-2:])
    assert peak <= estimate
    assert estimate < 2.5 * peak, "an estimate far too high cuts images into tiles that would fit whole"


@pytest.fixture
def light():
    with torch.device("meta"):
        return atd.create("atd_light_sr_x4")


def test_untiled_when_it_fits_else_the_largest_tile_that_does(light, monkeypatch):
    whole = memory.estimate(light, 512, 512, device=CPU)
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(whole / memory.USABLE) + 1)
    assert memory.largest_tile(light, 512, 512, device=CPU) is None
    assert memory.largest_tile(light, 500, 530, device=CPU) == 512
    assert memory.largest_tile(light, 2000, 2000, device=CPU) == 512
    # Two tiles at a time take twice as much; a narrow image leaves room for longer ones.
    assert memory.largest_tile(light, 2000, 2000, device=CPU, batch_size=2) == 352
    assert memory.largest_tile(light, 128, 4000, device=CPU) == 2048
    # Half of it less what every call takes: 119 thousand pixels.
    assert memory.largest_tile(light, 2000, 2000, device=CPU, reserve=whole // 2) == 336
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert memory.largest_tile(light, 2000, 2000, device=CPU) == light.size_multiple
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    assert memory.largest_tile(light, 2000, 2000, device=CPU) is None


def test_estimates_grow_with_width_and_are_cautious_about_strangers(light):
    with torch.device("meta"):
        wide = atd.ATD(embed_dim=96, num_heads=[3], depths=[1], upscale=4, category_size=128)
    assert memory.bytes_per_pixel(wide, CPU) > 1.5 * memory.bytes_per_pixel(light, CPU)
    assert memory.bytes_per_pixel(Nearest(), CPU) == memory.UNKNOWN_BYTES_PER_PIXEL


def test_free_memory_is_what_linux_says():
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        pytest.skip("reading free memory needs Linux")
    total = next(int(line.split()[1]) for line in meminfo.read_text().splitlines() if line.startswith("MemTotal"))
    free = memory.free_ram()
    assert free is not None
    assert 0 < free <= total * 1024


def test_free_disk_of_a_folder_that_does_not_exist_yet(tmp_path):
    assert memory.free_disk(tmp_path / "a" / "b") == pytest.approx(memory.free_disk(tmp_path), rel=0.01)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (30, "30 bytes"),
        (99, "99 bytes"),
        (100, "0.1 kB"),
        (4_000, "4.0 kB"),
        (100_000, "0.1 MB"),
        (56_000_000, "56.0 MB"),
        (100_000_000, "0.1 GB"),
        (2.5e11, "250.0 GB"),
    ],
)
def test_no_size_reads_as_zero(size, words):
    assert memory._in_words(size) == words
