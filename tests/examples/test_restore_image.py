"""examples/restore_image.py and examples/before_after.py, run as a user runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(script, *arguments):
    done = subprocess.run([sys.executable, EXAMPLES / script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_restore_image_keeps_depth_alpha_profile_and_exif(tmp_path):
    pyvips = pytest.importorskip("pyvips")
    pixels = np.random.default_rng(0).integers(0, 65_536, (10, 12, 4)).astype(np.uint16)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    source = pyvips.Image.new_from_array(pixels, interpretation="rgb16").copy(xres=10, yres=10)
    source.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    source.set_type(pyvips.GValue.blob_type, "exif-data", exif.tobytes())
    source.pngsave(str(tmp_path / "in.png"))
    run("restore_image.py", tmp_path / "in.png", tmp_path / "out.png")
    result = pyvips.Image.new_from_file(str(tmp_path / "out.png"))
    assert (result.width, result.height, result.bands, result.format) == (48, 40, 4, "ushort")
    assert bytes(result.get("icc-profile-data")) == profile
    assert result.xres == pytest.approx(10, rel=1e-3)
    with Image.open(tmp_path / "out.png") as image:
        assert image.getexif()[0x010F] == "Maker"


@pytest.mark.slow
def test_restore_image_enlarges_a_photo(tmp_path):
    Image.effect_noise((12, 10), 60).convert("RGB").save(tmp_path / "a.png")
    run("restore_image.py", tmp_path / "a.png", tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").size == (48, 40)


@pytest.mark.slow
def test_before_after_makes_the_image_of_the_readme_from_the_crop_that_is_documented(tmp_path):
    run("before_after.py", EXAMPLES / "photo.png", tmp_path / "made.png")
    made, shown = (
        np.asarray(Image.open(path)).astype(int) for path in (tmp_path / "made.png", EXAMPLES / "before_after.png")
    )
    assert made.shape == shown.shape
    half = (made.shape[1] - 8) // 2
    assert np.array_equal(made[:, :half], shown[:, :half])
    assert np.abs(made[:, half:] - shown[:, half:]).max() <= 2
    (crop,) = re.findall(r"^CROP = \((.*)\)$", (EXAMPLES / "before_after.py").read_text(), re.MULTILINE)
    for text in (path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *EXAMPLES.glob("*.py"))):
        for documented in re.findall(r"before_after\.py.*--crop (\d+ \d+ \d+ \d+)", text):
            assert documented.split() == crop.split(", ")
