"""Make the corpus of `fuzz.py`: ``python tests/attack/make_corpus.py``.

Small files of ours: one of each format and of each way in which its samples may lie, and those that were read wrongly
or not refused once.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

from attacks.fuzz_targets import CORPUS  # noqa: E402  (found in the folders above)
from attacks.image_seeds import seeds  # noqa: E402
from small_networks import FAMILIES, small  # noqa: E402

INTACT = (
    "png 1",
    "png P with a transparent colour",
    "png LA",
    "png interlaced",
    "jpg L",
    "jpg progressive",
    "jpg restarts",
    "webp lossy",
    "webp lossless RGB",
    "gif P with a transparent colour",
    "bmp 1",
    "bmp P",
    "ppm 1",
    "ppm L",
    "tif 1 group4",
    "tif L packbits",
    "tif P tiff_lzw",
    "tif LA tiff_adobe_deflate",
    "tif YCbCr jpeg",
    "tif 16 bits 1 channels big-endian",
    "tif white is zero",
    "tif tiled 1 deflate",
    "tif tiled L lzw",
    "tif tiled LA packbits",
    "tif tiled L jpeg",
    "tif tiled CCITT",
)


def tiff(fields: list[tuple[int, int]], data: bytes = bytes(100)) -> bytes:
    """A little-endian TIFF of one strip, with fields of 16 bits."""
    table = [*fields, (273, 8), (279, len(data))]
    directory = struct.pack("<H", len(table)) + b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in table)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def damaged_images() -> dict[str, bytes]:
    """What was read wrongly, or ended with another error than ours, by what was wrong with it."""
    gray = [(256, 10), (257, 10), (258, 8), (262, 1)]
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    jpeg, white = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG")
    rows = bytearray(jpeg.getvalue())
    struct.pack_into(">H", rows, rows.index(b"\xff\xc0") + 5, 60_000)
    tifffile.imwrite(white, pixels.astype(np.float32), photometric="miniswhite", metadata=None)
    return {
        "codec of others": tiff([*gray, (259, 50_000)]),
        "unknown predictor": tiff([*gray, (259, 5), (317, 4)]),
        "field twice": tiff([*gray, (284, 1), (284, 2)]),
        "planes of bits": tiff([(256, 10), (257, 10), (258, 1), (262, 1), (284, 2)]),
        "sign of a bit": tiff([(256, 10), (257, 10), (258, 1), (262, 1), (339, 2)]),
        "palette cut off": tiff([(256, 10), (257, 10), (258, 8), (262, 3), (320, 7)]),
        "gigapixels": tiff([(256, 60_000), (257, 60_000), (258, 8), (262, 1)]),
        "size of zero": tiff([(256, 0), (257, 10), (258, 8), (262, 1)]),
        "fax of bytes": tiff([*gray, (259, 4)]),
        "ink without a profile": tiff([(256, 5), (257, 5), (258, 8), (262, 5), (277, 4)]),
        "directory beyond all files": b"II+\0\x08\0\0\0" + b"\xff" * 8,
        "rows of nothing": bytes(rows),
        "white of floats": white.getvalue(),
        "end of zeros": jpeg.getvalue()[:-40] + bytes(40),
    }


def main() -> None:
    """Write the files, each into the folder of its target."""
    shutil.rmtree(CORPUS, ignore_errors=True)
    chosen = {seed.name: seed.data for seed in seeds() if seed.name in INTACT}
    shapes = {name: {key: list(value.shape) for key, value in small(name).state_dict().items()} for name in FAMILIES}
    config = {"architecture": "ATD", "config": {"depths": [2, 1], "window_size": 4, "upscale": 2, "img_range": 1.0}}
    write("images", chosen | damaged_images())
    write("detection", {name: json.dumps(value, separators=(",", ":")).encode() for name, value in shapes.items()})
    write(
        "config",
        {
            "ATD": json.dumps(config).encode(),
            "a billion layers": json.dumps({**config, "config": {"depths": [10**9]}}).encode(),
            "deep": b"[" * 2000,
            "no text": b"\xff\xfe{}",
        },
    )
    recipe = (HERE.parents[1] / "atd" / "training" / "recipes" / "103.toml").read_bytes()
    write("recipe", {"103": recipe, "infinite": b"lr = inf\n", "no text": b"\xff\xfe", "based": b'base = "fuzzed"\n'})


def write(target: str, files: dict[str, bytes]) -> None:
    """One folder of the corpus."""
    (folder := CORPUS / target).mkdir(parents=True)
    for name, data in files.items():
        (folder / name.replace(" ", "-")).write_bytes(data)


if __name__ == "__main__":
    main()
