"""A disk that takes no more, whoever writes: one sentence that names the result, and nothing left but finished rows.

A limit of the size of files stands for the full disk: the same calls fail, at the same places.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from restoration_networks import Nearest

from atd.cli import main
from atd.images import ImageData, read_image, write_image
from atd.restoration import api
from atd.restoration.api import restore_file

resource = pytest.importorskip("resource", reason="needs POSIX limits")


@contextmanager
def files_of_at_most(size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noise(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (height, width, 3)).astype(dtype)


@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg", ".webp", ".bmp", "16.png", "16.tif"])
def test_every_encoder_tells_of_a_full_disk_by_the_name_of_the_result(tmp_path, ending):
    if ending.startswith("16"):
        pytest.importorskip("pyvips")
    image = ImageData(noise(300, 300, np.uint16 if ending.startswith("16") else np.uint8))
    target = tmp_path / f"out{ending}"
    target.write_bytes(b"previous")
    with files_of_at_most(10_000), pytest.raises(OSError, match="out") as caught:
        write_image(target, image)
    assert caught.value.filename == str(target)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"previous"


@pytest.mark.parametrize("depth", ["8", "16"])
def test_the_command_says_so_in_a_sentence_and_goes_on(tmp_path, monkeypatch, capsys, depth):
    if depth == "16":
        pytest.importorskip("pyvips")
    monkeypatch.setattr(api, "load_network", lambda *_: Nearest(2))
    monkeypatch.chdir(tmp_path)
    dtype = np.uint16 if depth == "16" else np.uint8
    for name, size in (("a.png", 300), ("b.png", 8)):
        write_image(Path(name), ImageData(noise(size, size, dtype)))
    with files_of_at_most(100_000):
        assert main(["restore", "-i", "a.png", "b.png", "-o", "out", "--model", "net", "--stream", "off"]) == 1
    errors = capsys.readouterr().err
    assert f"atd: a.png: out{os.sep}a_net.png: File too large\n" in errors
    assert "Traceback" not in errors
    assert os.listdir("out") == ["b_net.png"]


@pytest.mark.parametrize("at_most", [200_000, 240_000])
def test_a_streaming_run_keeps_its_rows_and_goes_on_when_there_is_room(tmp_path, at_most):
    """240 000 bytes hold all rows, but not the PNG of noise, which is a little longer."""
    pytest.importorskip("pyvips")
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    pixels = noise(200, 400)
    Image.fromarray(pixels).save(source)
    with files_of_at_most(at_most), pytest.raises(OSError, match="File too large") as caught:
        restore_file(Nearest(1), source, target, tile=64, overlap=8, stream=True)
    assert caught.value.filename in (str(target), f"{target}.part")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png.part", "out.png.part.json"]
    network, whole = Nearest(1), Nearest(1)
    restore_file(network, source, target, tile=64, overlap=8, resume=True)
    assert np.array_equal(read_image(target).pixels, pixels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png"]
    restore_file(whole, source, tmp_path / "whole.png", tile=64, overlap=8, stream=True)
    assert len(network.seen) < len(whole.seen)
