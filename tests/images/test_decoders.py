"""What decoders pass over: damaged strips, what stands behind the pixels, wide integers, warnings without a name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from restoration_networks import Nearest

from atd.cli import main
from atd.errors import ImageError
from atd.images import probe, read_image
from atd.restoration import api
from atd.restoration.api import restore_file

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF/></x:xmpmeta>'


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.mark.parametrize(("codec", "garbage"), [("tiff_adobe_deflate", 0x00), ("tiff_lzw", 0xFF)])
@pytest.mark.parametrize("stream", [False, True])
def test_tiff_with_a_damaged_strip_is_refused(tmp_path, codec, garbage, stream):
    pytest.importorskip("pyvips")
    source = tmp_path / "in.tif"
    Image.fromarray(noise(60, 50, 3)).save(source, compression=codec)
    data = bytearray(source.read_bytes())
    data[200:260] = bytes([garbage]) * 60
    source.write_bytes(data)
    with pytest.raises(ImageError, match=r"in\.tif cannot be decoded"):
        restore_file(Nearest(2), source, tmp_path / "out.png", tile=32, stream=stream)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_deep_tiff_with_a_damaged_strip_is_refused(tmp_path):
    pyvips = pytest.importorskip("pyvips")
    source = tmp_path / "in.tif"
    image = pyvips.Image.new_from_array(noise(60, 50, 3, dtype=np.uint16), interpretation="rgb16")
    image.tiffsave(str(source), compression="deflate")
    data = bytearray(source.read_bytes())
    data[500:560] = bytes(60)
    source.write_bytes(data)
    with pytest.raises(ImageError, match=r"in\.tif cannot be decoded"):
        read_image(source)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def late_png(path: Path, pixels: np.ndarray, *, orientation: int | None = None, packed: bool = False) -> Path:
    """An unfiltered PNG of 8 or 16 bits with EXIF and XMP behind its pixels, after the specification."""
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    if orientation is not None:
        exif[0x0112] = orientation
    xmp = zlib.compress(XMP) if packed else XMP
    text = b"XML:com.adobe.xmp\0" + bytes([packed, 0]) + b"\0\0" + xmp
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    chunks = [
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
        chunk(b"iTXt", text),
        chunk(b"IEND", b""),
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_exif_and_xmp_behind_the_pixels_of_a_png_are_kept(tmp_path, stream, packed):
    if stream:
        pytest.importorskip("pyvips")
    source = late_png(tmp_path / "in.png", noise(20, 30, 3), packed=packed)
    restore_file(Nearest(2), source, tmp_path / "out.png", tile=16, stream=stream)
    with Image.open(tmp_path / "out.png") as image:
        assert image.getexif()[0x010F] == "Maker"
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        assert (xmp.encode() if isinstance(xmp, str) else xmp) == XMP


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_orientation_behind_the_pixels_of_a_png_is_applied(tmp_path, orientation, dtype):
    pytest.importorskip("pyvips")
    pixels = noise(20, 30, 3, dtype=dtype)
    source = late_png(tmp_path / "in.png", pixels, orientation=orientation)
    # Pillow's own turning, of the 8 upper bits.
    with Image.open(source) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    image_data = read_image(source)
    assert probe(source).shape == image_data.pixels.shape == expected.shape
    assert np.array_equal(image_data.pixels >> (8 if dtype == np.uint16 else 0), expected)
    restore_file(Nearest(2), source, tmp_path / "out.png", tile=16, stream=True)
    assert np.array_equal(read_image(tmp_path / "out.png").pixels[::2, ::2], image_data.pixels)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_tiff_of_32_bit_integers_streams_where_its_samples_fit_into_16(tmp_path, dtype):
    pyvips = pytest.importorskip("pyvips")
    pixels = noise(70, 50, dtype=np.uint16)
    source = tmp_path / "in.tif"
    pyvips.Image.new_from_array(pixels.astype(dtype)).tiffsave(str(source), compression="deflate")
    network = Nearest(2)
    restore_file(network, source, tmp_path / "out.png", tile=32, overlap=8, stream=True)
    assert len(network.seen) > 1
    with Image.open(tmp_path / "out.png") as image:
        assert np.array_equal(np.asarray(image)[::2, ::2], pixels)
    pixels = pixels.astype(dtype)
    pixels[60, 20] = 65_536
    pyvips.Image.new_from_array(pixels).tiffsave(str(source), compression="deflate")
    for stream in (False, True):
        with pytest.raises(ImageError, match=r"in\.tif.*beyond 65535"):
            restore_file(Nearest(2), source, tmp_path / "new.png", tile=32, overlap=8, stream=stream)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif", "out.png"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_decoders_say_of_a_file_names_it_and_nothing_else_reaches_stderr(tmp_path, monkeypatch, capfd, workers):
    """EXIF that is cut short (a warning of Pillow), LZW that is damaged (a line of libtiff, past Python)."""
    monkeypatch.setattr(api, "load_network", lambda *_: Nearest(2))
    folder = tmp_path / "in"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x010F], exif[0x9003] = "Maker", "2020:01:01 00:00:00"
    Image.fromarray(noise(20, 30, 3)).save(folder / "a.jpg", exif=exif.tobytes()[:-12])
    Image.fromarray(noise(60, 50, 3)).save(folder / "b.tif", compression="tiff_lzw")
    data = bytearray((folder / "b.tif").read_bytes())
    data[200:260] = b"\xff" * 60
    (folder / "b.tif").write_bytes(data)
    words = ["restore", "-i", folder, "-o", tmp_path / "out", "--model", "net", "--stream", "off", "--workers", workers]
    assert main([str(word) for word in words]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert f"atd: warning: {folder / 'a.jpg'}: Truncated File Read" in lines
    assert all(line.startswith("atd: ") for line in lines)
