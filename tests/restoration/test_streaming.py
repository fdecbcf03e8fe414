"""Files restored in strips: the same pixels as in memory, interruption at any moment, resuming, and refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin
from restoration_networks import Convolution, Learned, Nearest

from atd.errors import MissingExtraError
from atd.restoration import memory
from atd.restoration.api import restore, restore_file
from atd.restoration.plan import part_of

pyvips = pytest.importorskip("pyvips")
TESTS = Path(__file__).parents[1]


def noise(height=150, width=110, channels=3, dtype=np.uint8):
    high = 256 if dtype == np.uint8 else 65_536
    return np.random.default_rng(0).integers(0, high, (height, width, channels)).astype(dtype)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_streaming_gives_the_pixels_of_memory(tmp_path, ending, channels):
    pixels = noise(channels=channels)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(tmp_path / "in.png")
    network = Learned()
    target = tmp_path / f"out{ending}"
    restore_file(network, tmp_path / "in.png", target, tile=48, overlap=16, stream=True)
    expected = restore(network, pixels, tile=48, overlap=16)
    assert np.array_equal(np.asarray(Image.open(target)).reshape(expected.shape), expected)
    assert names(tmp_path) == sorted(["in.png", target.name])


def test_sixteen_bits_and_metadata_are_streamed(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    source = pyvips.Image.new_from_array(noise(dtype=np.uint16), interpretation="rgb16").copy(xres=10, yres=10)
    source.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    source.set_type(pyvips.GValue.blob_type, "exif-data", exif.tobytes())
    source.pngsave(str(tmp_path / "in.png"))
    for ending in (".png", ".tif"):
        restore_file(Nearest(scale=2), tmp_path / "in.png", tmp_path / f"out{ending}", tile=64, stream=True)
        result = pyvips.Image.new_from_file(str(tmp_path / f"out{ending}"))
        assert np.array_equal(result.numpy(), noise(dtype=np.uint16).repeat(2, 0).repeat(2, 1))
        assert bytes(result.get("icc-profile-data")) == profile
        assert result.xres == pytest.approx(10, rel=1e-3)
        with Image.open(tmp_path / f"out{ending}") as image:
            assert image.getexif()[0x010F] == "Maker"


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_is_applied_while_streaming(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise()).save(tmp_path / "in.png", exif=exif)
    restore_file(Nearest(scale=2), tmp_path / "in.png", tmp_path / "out.png", tile=64, stream=True)
    turned = np.rot90(noise(), {3: 2, 6: -1}[orientation])
    with Image.open(tmp_path / "out.png") as image:
        assert np.array_equal(np.asarray(image), turned.repeat(2, 0).repeat(2, 1))
        # libvips writes the tag whatever it is told; 1 is "upright".
        assert image.getexif().get(0x0112, 1) == 1


def test_large_results_are_streamed_by_themselves(tmp_path, monkeypatch):
    Image.fromarray(noise()).save(tmp_path / "in.png")
    monkeypatch.setattr(memory, "free_ram", lambda: 2_000_000)
    restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.png", tile=32)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), noise().repeat(4, 0).repeat(4, 1))
    with pytest.raises(MemoryError, match=r"in\.png.*[GMk]B of RAM"):
        restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.png", tile=32, stream=False)


def test_images_beyond_pillows_limit_are_streamed(tmp_path, monkeypatch):
    """Pillow refuses to open them at all; metadata then comes from libvips."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    Image.fromarray(noise()).save(tmp_path / "in.png", exif=exif, dpi=(300, 300))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    restore_file(Nearest(scale=2), tmp_path / "in.png", tmp_path / "out.png", tile=64, stream=True)
    monkeypatch.undo()
    with Image.open(tmp_path / "out.png") as image:
        assert np.array_equal(np.asarray(image), np.rot90(noise(), -1).repeat(2, 0).repeat(2, 1))
        assert image.getexif()[0x010F] == "Maker"
        assert image.info["dpi"][0] == pytest.approx(300, abs=0.1)


def test_metadata_is_read_without_decoding_the_image(tmp_path, monkeypatch):
    Image.fromarray(noise()).save(tmp_path / "in.png")

    def decoded(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", decoded)
    restore_file(Nearest(scale=2), tmp_path / "in.png", tmp_path / "out.tif", tile=64, stream=True)
    assert (tmp_path / "out.tif").exists()


def test_without_libvips_one_sentence(tmp_path, monkeypatch):
    Image.fromarray(noise()).save(tmp_path / "in.png")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    with pytest.raises(MissingExtraError, match=r"needs pyvips: pip install 'atd-restoration\[io\]'"):
        restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.png", stream=True)
    assert names(tmp_path) == ["in.png"]


def test_outscale_is_resized_while_encoding(tmp_path):
    smooth = np.asarray(Image.fromarray(noise(12, 10)).resize((100, 120), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "in.png")
    restore_file(Nearest(scale=4), tmp_path / "in.png", tmp_path / "out.png", tile=48, outscale=2.5, stream=True)
    result = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    assert result.shape == (300, 250, 3)
    assert np.abs(result - restore(Nearest(scale=4), smooth, outscale=2.5)).max() <= 3
    with pytest.raises(ValueError, match="more than once"):
        restore_file(Nearest(scale=2), tmp_path / "in.png", tmp_path / "out.png", outscale=3, stream=True)


class Cancelled(Exception):
    pass


def interrupt(network, source, target, at, **arguments):
    def stop(state):
        if state.done == at:
            raise Cancelled

    with pytest.raises(Cancelled):
        restore_file(network, source, target, stream=True, progress=stop, **arguments)


def test_an_interrupted_run_goes_on_from_its_finished_rows(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "in.png")
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    network = Learned()
    interrupt(network, source, target, at=8, tile=48, overlap=16)
    assert names(tmp_path) == ["in.png", "out.png.part", "out.png.part.json"]
    assert json.loads((tmp_path / "out.png.part.json").read_text())["finished"] > 0
    states = []
    restore_file(network, source, target, tile=48, overlap=16, resume=True, progress=states.append)
    # 5 rows of 3 tiles; two rows were finished, the second is computed again because the third is faded into it.
    assert states[-1].total == 12
    assert names(tmp_path) == ["in.png", "out.png"]
    expected = restore(network, noise(), tile=48, overlap=16)
    assert np.array_equal(np.asarray(Image.open(target)), expected)


def test_a_run_that_ran_out_of_memory_goes_on_with_its_smaller_tiles(tmp_path, caplog):
    class Shrinking(Convolution):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 3 and x.shape[-1] > 40:
                raise MemoryError
            return super().forward(x)

    Image.fromarray(noise()).save(tmp_path / "in.png")
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    interrupt(Shrinking(2), source, target, at=3 + 24, tile=48, overlap=16)
    assert "out of memory" in caplog.text
    assert json.loads((tmp_path / "out.png.part.json").read_text())["position"]["tile"] < 40
    restore_file(Shrinking(2), source, target, tile=48, overlap=16, resume=True)
    expected = restore(Convolution(2), noise())
    assert np.abs(np.asarray(Image.open(target)).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("what", ["input", "weights", "settings"])
def test_resuming_is_refused_when_something_differs(tmp_path, what):
    Image.fromarray(noise()).save(tmp_path / "in.png")
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    network = Learned()
    interrupt(network, source, target, at=8, tile=48, overlap=16)
    tile = 48
    if what == "input":
        Image.fromarray(noise()[::-1].copy()).save(source)
    elif what == "weights":
        with torch.no_grad():
            network.body.bias[0] += 1e-3
    else:
        tile = 64
    before = part_of(target).read_bytes()
    with pytest.raises(ValueError, match=f"made from (another|other) {what}"):
        restore_file(network, source, target, tile=tile, overlap=16, resume=True)
    assert part_of(target).read_bytes() == before
    restore_file(network, source, target, tile=tile, overlap=16, stream=True)
    assert names(tmp_path) == ["in.png", "out.png"]


def test_a_broken_input_leaves_nothing(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "in.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"in\.png cannot be decoded"):
        restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.png", tile=32, stream=True)
    assert names(tmp_path) == ["in.png", "whole.png"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_nothing_under_the_final_name_and_can_be_resumed(tmp_path, how):
    Image.fromarray(noise()).save(tmp_path / "in.png")
    script = """
import signal, sys, time
sys.path.insert(0, sys.argv[1])
from restoration_networks import Learned
from atd.restoration.api import restore_file
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
def slowly(state):
    print(state.done, flush=True)
    time.sleep(0.02 if state.done < 8 else 60)
restore_file(Learned(), "in.png", "out.png", tile=48, overlap=16, stream=True, progress=slowly)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(TESTS / "support")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(TESTS.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 8:
            break
    time.sleep(0.1)
    process.send_signal(how)
    process.wait(timeout=30)
    process.stdout.close()
    assert process.returncode != 0
    assert "out.png" not in names(tmp_path)
    states = []
    restore_file(
        Learned(), tmp_path / "in.png", tmp_path / "out.png", tile=48, overlap=16, resume=True, progress=states.append
    )
    assert states[-1].total == 12
    expected = restore(Learned(), noise(), tile=48, overlap=16)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)
    assert names(tmp_path) == ["in.png", "out.png"]


def test_a_result_is_bigtiff_when_it_must_be(tmp_path, monkeypatch):
    from atd.images import vips

    monkeypatch.setattr(vips, "CLASSIC_TIFF_BYTES", 1000)
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.fromarray(noise()).save(tmp_path / "in.png", exif=exif)
    restore_file(Nearest(scale=2), tmp_path / "in.png", tmp_path / "out.tif", tile=64, stream=True)
    assert (tmp_path / "out.tif").read_bytes()[:4] == b"II+\0"
    with Image.open(tmp_path / "out.tif") as image:
        assert np.array_equal(np.asarray(image), noise().repeat(2, 0).repeat(2, 1))
        assert image.getexif()[0x010F] == "Maker"
