"""Image files as their formats lay them out: pieces that can be lost or doubled, numbers that can lie.

Written after the specifications, not with the code under attack.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from attacks.byte_mutators import INTERESTING

# Numbers that mean something in some format: TIFF's compressions, photometrics and tags, depths, sizes of a bomb.
_MEANINGFUL = (4, 5, 6, 16, 24, 32, 34_712, 34_887, 34_925, 32_773, 32_946, 50_000, 50_001, 30_000, 60_000)


class Number(NamedTuple):
    """A number in a header: where it is, and its struct format."""

    offset: int
    format: str


class Structure(NamedTuple):
    """Where a file's pieces and numbers are."""

    pieces: list[slice]
    numbers: list[Number]
    mend: Callable[[bytes], bytes] = bytes
    """Puts checksums right again after a change, so that it gets past them."""


def structure_of(data: bytes) -> Structure:
    """The layout of an intact file of any format that is read."""
    for signature, layout in _LAYOUTS.items():
        if re.match(signature, data, re.DOTALL):
            return layout(data)
    raise ValueError(f"no layout is known for {data[:8]!r}")


def lie(data: bytes, random: Random) -> bytes:
    """One number, or two, say something else; checksums are right."""
    layout = structure_of(data)
    damaged = bytearray(data)
    for offset, kind in random.sample(layout.numbers, min(random.choice([1, 1, 2]), len(layout.numbers))):
        largest = 256 ** struct.calcsize(kind) - 1
        (before,) = struct.unpack_from(kind, data, offset)
        near = (before + 1, before - 1, before * 2, before // 2)
        value = random.choice([random.choice(INTERESTING), random.choice(_MEANINGFUL), random.choice(near)])
        struct.pack_into(kind, damaged, offset, min(max(value, 0), largest))
    return layout.mend(bytes(damaged))


def rearrange(data: bytes, random: Random) -> bytes:
    """A piece is lost, doubled, moved, cut short or filled with noise; checksums of whole pieces stay right."""
    layout = structure_of(data)
    piece = random.choice(layout.pieces)
    before, body, after = data[: piece.start], data[piece], data[piece.stop :]
    kept = random.randrange(max(len(body), 1))
    match random.randrange(5):
        case 0:
            return before + after
        case 1:
            return before + body + body + after
        case 2:
            other = random.choice(layout.pieces)
            first, second = sorted((piece, other), key=lambda part: part.start)
            if first.stop > second.start:
                return before + body[:kept] + after
            return (
                data[: first.start] + data[second] + data[first.stop : second.start] + data[first] + data[second.stop :]
            )
        case 3:
            return before + body[:kept] + after
        case _:
            return layout.mend(before + body[:kept] + random.randbytes(len(body) - kept) + after)


def _png(data: bytes) -> Structure:
    pieces, position = [], 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        pieces.append(slice(position, end))
        position = end
    header = [Number(16, ">I"), Number(20, ">I"), *(Number(offset, "B") for offset in range(24, 29))]
    lengths = [Number(piece.start, ">I") for piece in pieces]
    palettes = [
        Number(random_offset, "B")
        for piece in pieces
        if data[piece.start + 4 : piece.start + 8] in (b"PLTE", b"tRNS")
        for random_offset in range(piece.start + 8, piece.stop - 4, 3)
    ]
    return Structure(pieces, header * 2 + lengths + palettes[:4], _with_png_checksums)


def _with_png_checksums(data: bytes) -> bytes:
    mended, position = bytearray(data), 8
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            break
        mended[end : end + 4] = zlib.crc32(data[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return bytes(mended)


def _jpeg(data: bytes) -> Structure:
    pieces, numbers, position = [], [], 2
    while position + 4 <= len(data):
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        pieces.append(slice(position, end))
        numbers.append(Number(position + 2, ">H"))
        if 0xC0 <= marker <= 0xC2:
            numbers += [Number(position + 4, "B"), Number(position + 5, ">H"), Number(position + 7, ">H")]
            numbers += [Number(offset, "B") for offset in range(position + 9, end)]
        if marker == 0xDD:
            numbers.append(Number(position + 4, ">H"))
        if marker == 0xDA:
            pieces += [slice(end, len(data) - 2), slice(len(data) - 2, len(data))]
            break
        position = end
    return Structure(pieces, numbers)


def _riff(data: bytes) -> Structure:
    pieces, numbers, position = [], [Number(4, "<I")], 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        end = min(position + 8 + size + size % 2, len(data))
        pieces.append(slice(position, end))
        numbers += [Number(position + 4, "<I"), *(Number(position + offset, "B") for offset in range(8, 18))]
        position = end
    return Structure(pieces, numbers)


def _tiff(data: bytes) -> Structure:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2] + data[3] == 43
    place, word, count_format, size = (8, "Q", "Q", 20) if big else (4, "I", "H", 12)
    (position,) = struct.unpack_from(order + word, data, place)
    (count,) = struct.unpack_from(order + count_format, data, position)
    first = position + struct.calcsize(count_format)
    pieces = [slice(first + size * index, first + size * (index + 1)) for index in range(count)]
    numbers = [Number(place, order + word), Number(position, order + count_format)]
    tables = {}
    for piece in pieces:
        tag, kind, length = struct.unpack_from(f"{order}HH{word}", data, piece.start)
        value = order + ("H" if kind == 3 and length == 1 else word)
        own = Number(piece.start + (12 if big else 8), value)
        # Mostly the values of what says how the samples lie; sometimes tags, types and lengths.
        numbers += [own] * (6 if tag in _TIFF_LAYOUT_TAGS else 1)
        numbers += [Number(piece.start, order + "H"), Number(piece.start + 2, order + "H")]
        numbers.append(Number(piece.start + 4, order + word))
        if tag in _TIFF_TABLES:
            tables[tag] = _table(data, order, own, kind, length)
            numbers += tables[tag] if length > 1 else []
    # What the tables lead to: strips or tiles.
    for offsets, sizes in ((273, 279), (324, 325)):
        for start, extent in zip(tables.get(offsets, ()), tables.get(sizes, ()), strict=True):
            (begin,) = struct.unpack_from(start.format, data, start.offset)
            (length,) = struct.unpack_from(extent.format, data, extent.offset)
            pieces.append(slice(begin, begin + length))
    return Structure(pieces, numbers)


_TIFF_TABLES = (273, 279, 324, 325)
_TIFF_LAYOUT_TAGS = (256, 257, 258, 259, 262, 277, 278, 284, 317, 322, 323, 338, 339, *_TIFF_TABLES)


def _table(data: bytes, order: str, value: Number, kind: int, length: int) -> list[Number]:
    """The entries of a field, which lie in it or where it says."""
    form = order + {3: "H", 4: "I", 16: "Q"}[kind]
    step = struct.calcsize(form)
    (elsewhere,) = struct.unpack_from(order + value.format[1:], data, value.offset)
    room = 8 if data[2] + data[3] == 43 else 4
    start = elsewhere if step * length > room else value.offset
    return [Number(start + step * index, form) for index in range(length)]


def _bmp(data: bytes) -> Structure:
    numbers = [Number(10, "<I"), Number(14, "<I"), Number(18, "<I"), Number(22, "<I"), Number(26, "<H")]
    numbers += [Number(28, "<H"), Number(30, "<I"), Number(34, "<I"), Number(46, "<I"), Number(2, "<I")]
    (start,) = struct.unpack_from("<I", data, 10)
    return Structure([slice(0, 14), slice(14, 54), slice(54, start), slice(start, len(data))], numbers)


def _gif(data: bytes) -> Structure:
    table = 3 * 2 ** (data[10] % 8 + 1) if data[10] & 128 else 0
    image = 13 + table
    numbers = [Number(6, "<H"), Number(8, "<H"), Number(10, "B"), Number(11, "B")]
    numbers += [Number(offset, "B") for offset in range(image, min(image + 24, len(data)))]
    end = len(data) - 1
    return Structure([slice(0, 13), slice(13, image), slice(image, end), slice(end, len(data))], numbers)


def _pnm(data: bytes) -> Structure:
    words = [slice(*match.span()) for match in re.finditer(rb"\S+\s", data[:20])][:4]
    digits = [Number(offset, "B") for word in words for offset in range(word.start, word.stop - 1)]
    return Structure([*words, slice(words[-1].stop, len(data))], digits)


_LAYOUTS: dict[bytes, Callable[[bytes], Structure]] = {
    rb"\x89PNG": _png,
    rb"\xff\xd8": _jpeg,
    rb"RIFF....WEBP": _riff,
    rb"II[*+]\0|MM\0[*+]": _tiff,
    rb"BM": _bmp,
    rb"GIF8": _gif,
    rb"P[1-6]": _pnm,
}
