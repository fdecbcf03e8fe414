"""Whether an image file is whole and who can read it, decided from its structure before a pixel is decoded.

Decoders fill what is missing with black or gray and say nothing: libvips gives zeros for a TIFF of a codec that it was
built without, Pillow does not look at the checksums of PNG pixels, libjpeg takes the zeros of a lost tail for data.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from atd.errors import ImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""A marker within entropy-coded data: neither a stuffed 0xff nor a restart."""

_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
"""Frames of Huffman codes: baseline, extended and progressive."""

# TIFF 6.0 (1992), its supplements and libtiff's registry: compression schemes by number.
_CODECS = {6: "old-style JPEG", 34887: "LERC", 34925: "LZMA", 34712: "JPEG 2000", 50000: "ZSTD", 50001: "WebP"}
_CODECS_OF_LIBVIPS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
"""None, CCITT, LZW, JPEG, deflate, PackBits, deflate: the ones that every build of libvips has."""
_DEFLATE_EXPANSION = 1032
_LARGEST_EXPANSION = {1: 1, 5: 2731, 8: _DEFLATE_EXPANSION, 32773: 64, 32946: _DEFLATE_EXPANSION}
"""Bytes that one stored byte becomes at most: LZW's longest string of 12 bits, deflate's and PackBits' longest run."""
_CCITT = (2, 3, 4)
_JPEG = 7
_PALETTE, _YCBCR = 3, 6
_FEWEST_SAMPLES = {0: 1, 1: 1, 2: 3, _PALETTE: 1, 5: 4, _YCBCR: 3, 8: 1, 9: 1, 10: 1}
"""By photometric interpretation: gray from white or from black, RGB, palette, inks, YCbCr, and three forms of Lab."""
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel by PNG's colour type."""
_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""Integer field types of TIFF and BigTIFF as struct names them."""


def check_header(file: BinaryIO, path: Path) -> None:
    """Refuse, with an `ImageError` that names `path`, a TIFF whose header promises more than the file holds; cheap."""
    with _from_start(file, path) as start:
        if start[:4] in TIFF_SIGNATURES:
            layout = _read_layout(file)
            _check_strips(layout)
            if layout.tiled and layout.compression == _JPEG:
                _check_jpeg_tile(file, layout)


def check_whole(file: BinaryIO, path: Path) -> None:
    """Refuse, with an `ImageError` that names `path`, a PNG or JPEG damaged or cut short; reads the file once."""
    with _from_start(file, path) as start:
        if start == PNG_SIGNATURE:
            _check_png(file)
        elif start[:3] == JPEG_SIGNATURE:
            _check_jpeg(file)


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF or BigTIFF of either byte order do."""
    with path.open("rb") as file:
        return file.read(4) in TIFF_SIGNATURES


def is_tiled_tiff(path: Path) -> bool:
    """Whether a file is a TIFF in tiles; an `ImageError` where it is one whose directory is broken."""
    if not is_tiff(path):
        return False
    with path.open("rb") as file:
        return _read_layout(file).tiled


@contextmanager
def _from_start(file: BinaryIO, path: Path) -> Generator[bytes, None, None]:
    """The first 8 bytes; at the end the file stands where its decoder had left it."""
    position = file.tell()
    try:
        file.seek(0)
        yield file.read(8)
    except ImageError as error:
        raise ImageError(f"{path} cannot be decoded: {error}") from error
    finally:
        file.seek(position)


def libvips_obstacle(path: Path) -> str | None:
    """Why libvips must not read this file although it would open it; None where it may."""
    with path.open("rb") as file:
        start = file.read(4)
        if start == b"GIF8":
            return "libvips reads GIF files that are damaged"
        if start not in TIFF_SIGNATURES:
            return None
        layout = _read_layout(file)
    if layout.compression not in _CODECS_OF_LIBVIPS:
        codec = _CODECS.get(layout.compression, f"scheme {layout.compression}")
        return f"TIFF compressed by {codec} is not read by libvips"
    if layout.compression == _JPEG and layout.bits > 8:
        return f"TIFF compressed by JPEG has 8 bits a sample, this one says {layout.bits}"
    if layout.predictor not in (1, 2, 3):
        return f"TIFF names a Predictor that is not known, {layout.predictor}"
    if layout.separate and layout.bits < 8:
        return "TIFF of separate channels with less than 8 bits is not read rightly by libvips"
    if layout.separate and layout.tiled:
        return "TIFF of separate channels in tiles is not read by libvips"
    if layout.tiled and layout.compression in _CCITT:
        return "TIFF compressed for fax in tiles is read by libvips where it is damaged"
    if layout.compression in _CCITT and layout.bits * layout.samples > 1:
        return f"TIFF compressed for fax has one bit a pixel, this one says {layout.bits * layout.samples}"
    if layout.photometric == _YCBCR and layout.compression != _JPEG:
        return "YCbCr TIFF that is not compressed by JPEG is not read rightly by libvips"
    further = layout.samples - _FEWEST_SAMPLES[layout.photometric]
    if further > 1:
        return f"TIFF with {further} channels beyond those of its colour is not read rightly by libvips"
    if further and not {1, 2} & set(layout.extra_samples):
        return "TIFF with a channel of which it does not say that it is transparency is not read rightly by libvips"
    if 1 in layout.extra_samples:
        return "TIFF whose colours are multiplied by alpha is not read rightly by libvips"
    return None


@dataclass(frozen=True)
class _TiffLayout:
    """What the first directory of a TIFF says about where and how its samples lie."""

    file_size: int
    width: int
    height: int
    bits: int
    """Of a pixel's largest sample."""
    samples: int
    compression: int
    photometric: int
    separate: bool
    """Each channel in strips of its own."""
    tiled: bool
    predictor: int
    extra_samples: tuple[int, ...]
    """What samples beyond those of colour are: 1 alpha that colours are multiplied by, 2 alpha, 0 anything."""
    block: tuple[int, int]
    """Height and width of a strip or tile."""
    offsets: np.ndarray
    sizes: np.ndarray
    """Of strips or tiles, in bytes; empty where the file does not say."""


def _read_layout(file: BinaryIO) -> _TiffLayout:
    """The layout of a TIFF or BigTIFF of either byte order; an `ImageError` where its directory is broken."""
    try:
        return _layout(file, file.seek(0, os.SEEK_END))
    except (struct.error, ValueError, KeyError, IndexError, OverflowError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError("its TIFF directory is broken or cut short") from error


def _layout(file: BinaryIO, file_size: int) -> _TiffLayout:
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = struct.unpack(order + "H", start[2:4])[0] == 43
    word, place = ("Q", 8) if big else ("I", 4)
    (position,) = struct.unpack(order + word, start[place : 2 * place])
    file.seek(position)
    counter = order + ("Q" if big else "H")
    (count,) = struct.unpack(counter, file.read(struct.calcsize(counter)))
    entry = struct.Struct(f"{order}HH{word}{place}s")
    if count * entry.size > file_size - position:
        raise ImageError("its TIFF directory lies outside the file")
    directory = file.read(count * entry.size)
    fields: dict[int, tuple[int, int, bytes]] = {}
    for tag, kind, number, inline in entry.iter_unpack(directory):
        if fields.setdefault(tag, (kind, number, inline)) != (kind, number, inline):
            # Readers differ in which of them they take.
            raise ImageError(f"its TIFF directory contradicts itself: field {tag} is there twice")

    def values(tag: int, default: tuple[int, ...] = ()) -> np.ndarray:
        if tag not in fields:
            return np.array(default, np.int64)
        kind, number, inline = fields[tag]
        dtype = np.dtype(order + {"B": "u1", "b": "i1"}.get(_TYPES[kind], _TYPES[kind]))
        data = inline
        if number * dtype.itemsize > place:
            (offset,) = struct.unpack(order + word, inline)
            if offset + number * dtype.itemsize > file_size:
                raise ImageError(f"table {tag} of its TIFF directory lies outside the file")
            file.seek(offset)
            data = file.read(number * dtype.itemsize)
        numbers = np.frombuffer(data, dtype, count=number)
        if numbers.size and int(numbers.max()) > np.iinfo(np.int64).max:
            raise ImageError(f"table {tag} of its TIFF directory is broken")
        return numbers.astype(np.int64)

    def value(tag: int, default: int | None = None) -> int:
        return int(values(tag, () if default is None else (default,))[0])

    width, height = value(256), value(257)
    tiled = 322 in fields
    block = (value(323), value(322)) if tiled else (min(value(278, height), height), width)
    if min(width, height, *block) < 1:
        raise ImageError("its TIFF directory names a size of zero")
    bits, samples, photometric = values(258, (1,)), value(277, 1), value(262, 1)
    if photometric not in _FEWEST_SAMPLES:
        raise ImageError(f"its TIFF directory names a kind of colour that is not read, {photometric}")
    if samples < _FEWEST_SAMPLES[photometric] or len(bits) not in (1, samples):
        raise ImageError(f"its TIFF directory contradicts itself: {samples} samples a pixel, bits for {len(bits)}")
    if {2, 3} & set(values(339).tolist()) and int(bits.max()) < 16:
        raise ImageError(f"its TIFF directory contradicts itself: signed or floating samples of {bits.max()} bits")
    if photometric == 0 and (3 in values(339) or int(bits.max()) > 16):
        raise ImageError(f"its white is zero, in numbers of {bits.max()} bits, for which there is no black")
    if photometric == _PALETTE and len(values(320)) < 3 * 2 ** min(int(bits.max()), 16):
        raise ImageError("its TIFF directory names a palette that is not whole")
    return _TiffLayout(
        file_size=file_size,
        width=width,
        height=height,
        bits=int(bits.max()),
        samples=samples,
        compression=value(259, 1),
        photometric=photometric,
        separate=value(284, 1) == 2,
        tiled=tiled,
        predictor=value(317, 1),
        extra_samples=tuple(values(338).tolist()),
        block=block,
        offsets=values(324 if tiled else 273),
        sizes=values(325 if tiled else 279),
    )


def _check_strips(layout: _TiffLayout) -> None:
    """Every strip or tile must have its place within the file, and enough bytes for what it should become."""
    rows, columns = layout.block
    down, across = -(-layout.height // rows), -(-layout.width // columns)
    planes = layout.samples if layout.separate else 1
    needed = down * across * planes
    offsets, sizes = layout.offsets, layout.sizes
    if len(offsets) < needed or (len(sizes) and len(sizes) < needed):
        raise ImageError(
            f"its header promises {layout.width}x{layout.height} pixels in {needed} pieces, "
            f"but the file lists {len(offsets)}"
        )
    if int(offsets.min(initial=0)) < 0 or int(offsets[:needed].max(initial=0)) >= layout.file_size:
        raise ImageError("pieces of it lie beyond the end of the file: it is cut short")
    expansion = _LARGEST_EXPANSION.get(layout.compression)
    if layout.photometric == _YCBCR or expansion is None:
        # Subsampled chroma, and codecs that may say much in few bytes: at least one byte a piece.
        least = 1
    else:
        last = layout.height - (down - 1) * rows if columns == layout.width else rows
        line = -(-columns * layout.bits * (1 if layout.separate else layout.samples) // 8)
        least = -(-min(last, rows) * line // expansion)
    if layout.compression == 1 and not len(sizes):
        sizes = np.full(needed, least)
    if len(sizes) and (
        int(sizes[:needed].min()) < least or int((offsets[:needed] + sizes[:needed]).max()) > layout.file_size
    ):
        raise ImageError(
            f"the file is too short for the {layout.width}x{layout.height} pixels that its header promises"
        )


def _check_jpeg_tile(file: BinaryIO, layout: _TiffLayout) -> None:
    """The first tile has the size of a tile; decoders take another for rows of something else, each in its own way."""
    file.seek(int(layout.offsets[0]))
    data = file.read(1 << 16)
    frame = _jpeg_frame(data, 2)
    if frame is not None and (frame.height, frame.width) != layout.block:
        size = f"{layout.block[1]}x{layout.block[0]}"
        raise ImageError(f"its header promises tiles of {size} pixels, the first has {frame.width}x{frame.height}")


def _check_png(file: BinaryIO) -> None:
    """All chunks up to IEND have the checksums that they name (PNG specification, section 5.3), and hold enough."""
    header, packed = b"", 0
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ImageError("the file is cut short: its last chunk, IEND, is missing")
        length, kind = struct.unpack(">I4s", head)
        checksum = zlib.crc32(kind)
        packed += length if kind == b"IDAT" else 0
        while length:
            data = file.read(min(length, 1 << 20))
            if not data:
                raise ImageError("the file is cut short within a chunk")
            checksum = zlib.crc32(data, checksum)
            header = data if kind == b"IHDR" else header
            length -= len(data)
        if file.read(4) != checksum.to_bytes(4, "big"):
            raise ImageError(f"the file is damaged: the checksum of a chunk {kind.decode('latin-1')!a} is wrong")
        if kind == b"IEND":
            break
    if len(header) < 13:
        raise ImageError("the file is damaged: its first chunk, IHDR, is missing or too short")
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    samples = _PNG_SAMPLES.get(colour, 1)
    if width * height * depth * samples > 8 * packed * _DEFLATE_EXPANSION:
        raise ImageError(f"the file is too short for the {width}x{height} pixels that its header promises")


class _JpegFrame(NamedTuple):
    """What a JPEG says of its size (ITU-T T.81, B.2.2)."""

    height: int
    width: int
    blocks: int
    """Of 8x8 samples in all components; at least."""


def _jpeg_frame(data: bytes | mmap.mmap, position: int) -> _JpegFrame | None:
    """The header of the first frame from `position` on; None where there is none that is whole."""
    while match := _JPEG_MARKER.search(data, position):
        marker, position = data[match.end() - 1], match.end()
        if marker in (0xD9, 0xDA) or position + 8 > len(data):
            return None
        length = int.from_bytes(data[position : position + 2], "big")
        if marker in _JPEG_FRAMES:
            height, width, count = struct.unpack(">HHB", data[position + 3 : position + 8])
            factors = [(byte >> 4, byte & 15) for byte in data[position + 9 : position + 8 + 3 * count : 3]]
            across, down = (max((factor[axis] for factor in factors), default=1) or 1 for axis in (0, 1))
            samples = (width * x // across * (height * y // down) for x, y in factors)
            return _JpegFrame(height, width, sum(number // 64 for number in samples))
        position += length
    return None


def _check_jpeg(file: BinaryIO) -> None:
    """Segments and scans follow each other up to the end-of-image marker (ITU-T T.81, annex B), and hold enough."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        frame = _jpeg_frame(data, 2)
        if frame is not None and frame.blocks > 8 * len(data):
            # The first coefficient of a block takes a bit at least.
            size = f"{frame.width}x{frame.height}"
            raise ImageError(f"the file is too short for the {size} pixels that its header promises")
        position = 2
        while match := _JPEG_MARKER.search(data, position):
            marker, position = data[match.end() - 1], match.end()
            if marker == 0xD9:
                return
            if marker != 0x01 and position + 2 <= len(data):
                position += int.from_bytes(data[position : position + 2], "big")
    raise ImageError("the file is damaged or cut short: its end-of-image marker is missing")
