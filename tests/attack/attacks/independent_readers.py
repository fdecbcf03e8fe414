"""What readers that are not ours make of an image file: Pillow, OpenCV, tifffile, and decoders of a page each.

Each gives (h, w, 4) float64 in [0, 1], upright: gray is repeated, missing alpha is 1. None where it cannot read the
file, or would have to guess.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms, ImageOps

Pixels = np.ndarray | None

_MOST_PIXELS = 4_000_000
"""Of a mutated file; more is a bomb, and nobody's truth."""


def readings(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each reader that can read the file, and its pixels."""
    for name, read in _READERS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                pixels = read(path)
            except Exception:  # whatever a decoder stumbles over
                continue
        if pixels is not None:
            yield name, pixels


def rgba(array: np.ndarray) -> np.ndarray:
    """(h, w), or (h, w, 1 to 4) of uint8, uint16, bool or float in [0, 1] → (h, w, 4) float64."""
    peak = {"uint8": 255, "uint16": 65_535}.get(array.dtype.name, 1)
    pixels = array.reshape(*array.shape[:2], -1).astype(np.float64) / peak
    channels = pixels.shape[2]
    colour = pixels[..., :3] if channels >= 3 else pixels[..., :1].repeat(3, axis=2)
    alpha = pixels[..., -1:] if channels in (2, 4) else np.ones_like(pixels[..., :1])
    return np.concatenate((colour, alpha), axis=2)


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """Absolute differences of two `rgba` images; the colour where alpha is 0 does not count. None for other sizes."""
    if first.shape != second.shape:
        return None
    visible = (np.maximum(first[..., 3:], second[..., 3:]) > 0) | (np.arange(4) == 3)
    return np.abs(first - second) * visible


def read_result(path: Path) -> np.ndarray:
    """A TIFF or PNG that the library wrote, by tifffile or the decoder below."""
    if path.suffix == ".png":
        pixels = _own_png(path)
        assert pixels is not None
        return pixels
    return rgba(tifffile.imread(path))


def is_large(path: Path) -> bool:
    """Whether a result has more pixels than the readers take; those of the attack are TIFF."""
    if path.suffix != ".tif":
        return False
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        return page.imagewidth * page.imagelength > _MOST_PIXELS


def large_difference(source: Path, result: Path) -> float:
    """The largest difference between an result and what Pillow sees in its source; infinite beyond 8 bits."""
    pixels = tifffile.imread(result)
    mode = "L" if pixels.ndim == 2 else ("LA", "RGB", "RGBA")[pixels.shape[2] - 2]
    with Image.open(source) as image:
        expected = np.asarray(image.convert(mode))
    if pixels.dtype != np.uint8 or pixels.shape != expected.shape:
        return math.inf
    return float(np.abs(pixels.astype(np.int16) - expected).max() / 255)


def _pillow(path: Path) -> Pixels:
    with Image.open(path) as image:
        if image.width * image.height > _MOST_PIXELS or (getattr(image, "n_frames", 1) > 1 and image.format != "MPO"):
            return None
        image.load()
        upright = ImageOps.exif_transpose(image) if image.getexif().get(274, 1) != 1 else image
        key = upright.info.get("transparency")
        mode = upright.mode
        if mode.startswith("I"):
            return _keyed16(np.asarray(upright), key)
        if mode == "F":
            return rgba(np.asarray(upright).astype(np.float64))
        if mode == "CMYK":
            profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            converted = ImageCms.profileToProfile(upright, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            return None if converted is None else rgba(np.asarray(converted))
        has_alpha = key is not None or mode in ("LA", "La", "PA", "RGBA", "RGBa")
        gray = mode in ("1", "L", "LA", "La")
        if mode == "La":
            upright = upright.convert("LA")
        return rgba(np.asarray(upright.convert(("LA" if gray else "RGBA") if has_alpha else "L" if gray else "RGB")))


def _keyed16(samples: np.ndarray, key: object) -> Pixels:
    if samples.min() < 0 or samples.max() > 65_535:
        return None
    alpha = np.where(samples == key, 0, 65_535) if isinstance(key, int) else np.full(samples.shape, 65_535)
    return rgba(np.stack((samples, alpha), axis=2).astype(np.uint16))


def _opencv(path: Path) -> Pixels:
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[0] * pixels.shape[1] > _MOST_PIXELS:
        return None
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    return rgba(pixels)


def _tifffile(path: Path) -> Pixels:
    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            return None
        page = file.pages.first
        sample_types = (np.uint8, np.uint16, np.float32, bool)
        if page.imagewidth * page.imagelength > _MOST_PIXELS or page.dtype not in sample_types:
            return None
        if page.tags.get(274) is not None and page.tags[274].value != 1:
            return None
        pixels = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
            pixels = np.moveaxis(pixels, 0, -1)
        photometric = page.photometric.name
        if photometric not in ("MINISBLACK", "MINISWHITE", "RGB") or 1 in page.extrasamples:
            return None
        image = rgba(pixels)
        if photometric == "MINISWHITE":
            image[..., :3] = 1 - image[..., :3]
        return image


def _own_tiff(path: Path) -> Pixels:
    """Strips and tiles of whole bytes, LZW too, which tifffile lacks, by its reading of the directory; strict."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        tags = {tag.code: tag.value for tag in page.tags}
        bits, planes = page.bitspersample, page.samplesperpixel if page.planarconfig == 2 else 1
        kind, samples = page.photometric.name, page.samplesperpixel
        ordinary = kind in ("MINISBLACK", "MINISWHITE", "RGB") and page.predictor in (1, 2) and len(file.pages) == 1
        if not ordinary or bits not in (8, 16) or tags.get(274, 1) != 1 or set(page.extrasamples) - {2}:
            return None
        if page.sampleformat != 1 or samples - len(page.extrasamples) != (3 if kind == "RGB" else 1):
            return None
        if page.imagewidth * page.imagelength > _MOST_PIXELS or page.compression not in _UNPACK:
            return None
        height, width, deep = page.imagelength, page.imagewidth, samples // planes
        rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
        across, down = -(-width // columns), -(-height // rows)
        image = np.zeros((down * rows, across * columns, samples), f"{file.byteorder}u{bits // 8}")
        for index in range(across * down * planes):
            plane, place = divmod(index, across * down)
            top, left = place // across * rows, place % across * columns
            here = rows if page.is_tiled else min(rows, height - top)
            file.filehandle.seek(page.dataoffsets[index])
            data = file.filehandle.read(page.databytecounts[index])
            piece = np.frombuffer(_UNPACK[page.compression](data), image.dtype, here * columns * deep).reshape(
                here, columns, deep
            )
            piece = np.cumsum(piece, axis=1, dtype=image.dtype) if page.predictor == 2 else piece
            image[top : top + here, left : left + columns, plane : plane + deep] = piece
    pixels = rgba(image[:height, :width].astype(f"u{bits // 8}"))
    if kind == "MINISWHITE":
        pixels[..., :3] = 1 - pixels[..., :3]
    return pixels


def _lzw(data: bytes) -> bytes:
    """TIFF 6.0, section 13."""
    stream = int.from_bytes(data, "big")
    left, width, result = 8 * len(data), 9, bytearray()
    table: list[bytes] = []
    before = b""
    while True:
        if left < width:
            raise ValueError("no end of information")
        left -= width
        code = stream >> left & (1 << width) - 1
        if code == 257:
            return bytes(result)
        if code == 256:
            table, before, width = [bytes([byte]) for byte in range(256)] + [b"", b""], b"", 9
            continue
        if code > len(table) or (code == len(table) and not before):
            raise ValueError("a code that is not in the table")
        word = table[code] if code < len(table) else before + before[:1]
        if before:
            table.append(before + word[:1])
        result += word
        before, width = word, min((len(table) + 1).bit_length(), 12)


_UNPACK: dict[int, Callable[[bytes], bytes]] = {1: bytes, 5: _lzw, 8: zlib.decompress, 32_946: zlib.decompress}


def _own_png(path: Path) -> Pixels:
    """Any PNG that is not interlaced: checksums, filters, palettes, keys; strict, after the specification."""
    data = path.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    chunks: dict[bytes, bytes] = {}
    position, name = 8, b""
    while name != b"IEND":
        (length,) = struct.unpack_from(">I", data, position)
        name, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if checksum != zlib.crc32(name + body):
            raise ValueError("checksum")
        chunks[name] = chunks.get(name, b"") + body if name == b"IDAT" else body
        position += length + 12
    width, height, depth, kind, compression, method, interlace = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if compression or method or interlace or not 0 < width * height <= _MOST_PIXELS:
        return None
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    line = math.ceil(width * channels * depth / 8)
    inflated = zlib.decompress(chunks[b"IDAT"])
    rows = np.frombuffer(inflated, np.uint8, (line + 1) * height).reshape(height, line + 1)
    samples = _unpacked(_unfiltered(rows, max(channels * depth // 8, 1)), depth)[:, : width * channels]
    samples = samples.reshape(height, width, channels)
    key = chunks.get(b"tRNS")
    if kind == 3:
        palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
        alphas = np.full(len(palette), 255, np.uint8)
        if key is not None:
            alphas[: len(key)] = np.frombuffer(key, np.uint8)
        return rgba(np.concatenate((palette, alphas[:, None]), axis=1)[samples[..., 0]])
    peak = 2**depth - 1
    pixels = rgba(samples.astype(np.float64) / peak)
    if key is not None and kind in (0, 2):
        transparent = (samples == np.frombuffer(key, ">u2")[:channels]).all(axis=2)
        pixels[..., 3] = np.where(transparent, 0, 1)
    return pixels


def _unfiltered(rows: np.ndarray, step: int) -> np.ndarray:
    """PNG specification, section 9."""
    above = bytearray(rows.shape[1] - 1)
    result = []
    for row in rows:
        line = bytearray(row[1:].tobytes())
        for x in range(len(line)):
            left, up = (line[x - step], above[x]) if x >= step else (0, above[x])
            corner = above[x - step] if x >= step else 0
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda value: abs(guess - value))
            line[x] = (line[x] + (0, left, up, (left + up) // 2, nearest)[row[0]]) % 256
        result.append(bytes(line))
        above = line
    return np.frombuffer(b"".join(result), np.uint8).reshape(len(rows), -1)


def _unpacked(lines: np.ndarray, depth: int) -> np.ndarray:
    """Bytes of rows → samples."""
    if depth == 16:
        return lines.copy().view(">u2").astype(np.uint16)
    if depth == 8:
        return lines
    bits = np.unpackbits(lines, axis=1).reshape(len(lines), -1, depth)
    return (bits * 2 ** np.arange(depth - 1, -1, -1)).sum(axis=2).astype(np.uint8)


def _own_pnm(path: Path) -> Pixels:
    data = path.read_bytes()
    if data[:1] != b"P" or data[1:2] not in b"456":
        return None
    words, position = [], 2
    while len(words) < (2 if data[1:2] == b"4" else 3):
        end = position
        while data[end : end + 1].isspace():
            end += 1
        start = end
        while data[end : end + 1].isdigit():
            end += 1
        words.append(int(data[start:end]))
        position = end
    width, height, *rest = words
    if not 0 < width * height <= _MOST_PIXELS:
        return None
    body = data[position + 1 :]
    if not rest:
        line = math.ceil(width / 8)
        rows = np.frombuffer(body, np.uint8, line * height).reshape(height, line)
        return rgba(1.0 - np.unpackbits(rows, axis=1)[:, :width])
    channels = 3 if data[1:2] == b"6" else 1
    dtype = np.dtype(np.uint8 if rest[0] < 256 else ">u2")
    pixels = np.frombuffer(body, dtype, width * height * channels).reshape(height, width, channels)
    # Samples above the stated peak are no image of it.
    return None if pixels.max() > rest[0] else rgba(pixels / rest[0])


_READERS: dict[str, Callable[[Path], Pixels]] = {
    "our PNG decoder": _own_png,
    "our PNM decoder": _own_pnm,
    "tifffile": _tifffile,
    "our TIFF decoder": _own_tiff,
    "OpenCV": _opencv,
    "Pillow": _pillow,
}
