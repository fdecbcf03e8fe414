"""examples/ray_restore.py on a local Ray: a folder with a bad file, and one whose worker is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import atd

pytest.importorskip("ray", reason="Ray is not installed: pip install 'atd-restoration[ray]'")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# A cluster of this machine, small and without a dashboard, which takes longer to start than the work.
SCRIPT = """
import sys, ray, ray_restore
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
sys.exit(ray_restore.main(sys.argv[1:]))
"""
MARK = "ATD_TEST_RUN"
"""A variable in the environment, by which the processes of one cluster are known."""


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    model = atd.ATD(upscale=2, embed_dim=12, depths=[1], num_heads=[2], window_size=8, category_size=16, num_tokens=8)
    model.save_pretrained(tmp_path / "tiny")
    return atd.load(tmp_path / "tiny")


@pytest.fixture
def run(tmp_path):
    """Starts the example on "in" and "out"; ends it and its cluster if the test has not waited for it."""
    begun = []

    def start(*words):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]),
            "RAY_USAGE_STATS_ENABLED": "0",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            MARK: uuid.uuid4().hex,
        }
        command = [sys.executable, "-c", SCRIPT, "-i", "in", "-o", "out", "--model", str(tmp_path / "tiny"), *words]
        with (tmp_path / "stdout").open("w") as out, (tmp_path / "stderr").open("w") as errors:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=errors)
        begun.append(process)
        return process, environment[MARK]

    yield start
    for process in begun:
        process.terminate()  # Ray takes its cluster with it
        process.wait(60)


def image(path, seed, size=(20, 14)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def check(network, tmp_path, names):
    """Each result is there, and is what this process makes of the file."""
    for name in names:
        result = np.asarray(Image.open(tmp_path / "out" / name.replace(".png", "_tiny.png")))
        assert np.array_equal(result, np.asarray(atd.restore(network, tmp_path / "in" / name, device="cpu")))


def workers_of(mark):
    """Processes of the cluster with this mark that hold a network."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}" in (folder / "environ").read_bytes().decode(errors="replace").split("\0"):
                title = (folder / "cmdline").read_bytes()
                if title.startswith(b"ray::") and b"Restorer" in title:
                    yield int(folder.name)
        except (OSError, ValueError):  # it has just ended, or is somebody else's
            continue


def test_a_folder_on_local_ray(tmp_path, network, run):
    names = ["a.png", "sub/b.png"]
    for seed, name in enumerate(names):
        image(tmp_path / "in" / name, seed)
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    process, _ = run("--recursive")
    status, errors = process.wait(300), (tmp_path / "stderr").read_text()
    assert "2 restored, 0 skipped, 1 failed" in (tmp_path / "stdout").read_text(), errors[-2000:]
    assert status == 1
    assert "bad.png is not an image" in errors
    check(network, tmp_path, names)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_every_result_is_whole_when_a_worker_is_killed_on_the_way(tmp_path, network, run):
    names = [f"{number}.png" for number in range(6)]
    for seed, name in enumerate(names):
        image(tmp_path / "in" / name, seed, (160, 120))
    process, mark = run()
    deadline = time.monotonic() + 200
    while not list((tmp_path / "out").glob("*_tiny.png")):
        assert process.poll() is None, (tmp_path / "stderr").read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed = list(workers_of(mark))
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    there = len(list((tmp_path / "out").glob("*_tiny.png")))
    assert killed
    assert there < len(names)
    status, errors = process.wait(300), (tmp_path / "stderr").read_text()
    # What it had done is skipped, or was counted before; the rest is done by its successor.
    assert status == 0, errors[-2000:]
    assert "0 failed" in (tmp_path / "stdout").read_text()
    check(network, tmp_path, names)
