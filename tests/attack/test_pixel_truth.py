"""What is read from a file of every format, mode, depth and codec is what others read: an identity network shows it.

Lossless codecs to the last bit, in memory and in strips. JPEG and lossy WebP are Pillow's to the bit where Pillow
reads them, and within two levels where libvips does, which has another decoder of its own. Inks are littlecms's.
"""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from restoration_networks import Nearest

pytest.importorskip("cv2", reason="OpenCV is not installed")
pytest.importorskip("pyvips", reason="libvips is not installed")

from attacks.image_seeds import seeds
from attacks.independent_readers import difference, read_result, readings

from atd.restoration.api import restore_file

SEEDS = {seed.name: seed for seed in seeds()}
LEVEL = 1 / 255
EXACT = 1e-6
# What others do on purpose. OpenCV drops the alpha of gray TIFF, multiplies the colours of others by it, converts inks
# without their profile, and knows no transparent colour without an alpha channel. Pillow cuts 16-bit colour to 8 bits;
# both take white for black where 16-bit gray says that white is zero.
EXCEPTIONS = {
    "OpenCV": (
        "CMYK",
        "LA",
        "tif RGBA",
        "tiled RGBA",
        "RGBa",
        "transparent colour",
        "YCbCr",
        "gif",
        "jpeg",
        "32 bits integer",
        "16 bits white",
    ),
    "Pillow": ("16 bits 2", "16 bits 3", "16 bits 4", "tiled 16 bits", "16 bits white"),
}
# Which are read in memory although strips were asked for.
WHOLE = (
    "bmp",
    "gif",
    "ppm",
    "CMYK",
    "YCbCr raw",
    "YCbCr tiff",
    "YCbCr packbits",
    "zstd",
    "lzma",
    "RGBa",
    "tiled CCITT",
    "tiled separate",
)


def readings_of(seed, path):
    path.write_bytes(seed.data)
    return {
        reader: pixels
        for reader, pixels in readings(path)
        if not any(words in seed.name for words in EXCEPTIONS.get(reader, ()))
    }


@pytest.mark.parametrize("stream", [False, True], ids=["in memory", "in strips"])
@pytest.mark.parametrize("name", SEEDS)
def test_every_accepted_image_is_what_independent_readers_see(tmp_path, caplog, name, stream):
    seed = SEEDS[name]
    source, target = tmp_path / f"in{seed.ending}", tmp_path / "out.tif"
    others = readings_of(seed, source)
    with caplog.at_level(logging.WARNING, "atd"):
        restore_file(Nearest(scale=1), source, target, stream=stream, tile=32, overlap=8)
    in_strips = stream and "in memory instead" not in caplog.text
    assert in_strips == (stream and not any(word in name for word in WHOLE))
    result = read_result(target)
    assert others
    for reader, theirs in others.items():
        apart = difference(result, theirs)
        assert apart is not None, f"{reader} sees {theirs.shape}, the result has {result.shape}"
        if "CMYK" in name:
            assert apart.max() <= LEVEL + EXACT, reader
        elif seed.is_exact or (reader == "Pillow" and not in_strips):
            assert apart.max() <= EXACT, f"{apart.max() / LEVEL:.3g} levels from {reader}"
        else:
            assert apart.max() <= 2 * LEVEL + EXACT, f"{apart.max() / LEVEL:.3g} levels from {reader}"
            assert apart.mean() <= 0.1 * LEVEL, f"{apart.mean() / LEVEL:.3g} levels on average from {reader}"


def test_no_seed_is_left_out_by_a_pillow_that_lacks_a_codec():
    wanted = [f"tif {mode} {codec}" for mode in ("1", "L", "LA", "P", "RGB", "RGBA") for codec in ("zstd", "lzma")]
    wanted += ["tif 1 group4", "tif YCbCr jpeg", "tif CMYK lzw", "webp lossless RGBA", "png interlaced", "jpg CMYK"]
    assert not set(wanted) - SEEDS.keys()
    assert len(SEEDS) > 100


def test_each_reader_has_its_say(tmp_path):
    counts = Counter(reader for seed in SEEDS.values() for reader in readings_of(seed, tmp_path / f"in{seed.ending}"))
    assert counts.keys() == {"our PNG decoder", "our PNM decoder", "our TIFF decoder", "tifffile", "OpenCV", "Pillow"}
    assert min(counts.values()) >= 4
    assert sum(counts.values()) > 1.8 * len(SEEDS)
