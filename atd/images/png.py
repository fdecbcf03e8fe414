"""What a PNG says after its pixels, where it may have its EXIF and its XMP (PNG specification, section 5.6)."""

from __future__ import annotations

import os
import struct
import zlib
from typing import BinaryIO, NamedTuple

XMP_KEYWORD = b"XML:com.adobe.xmp"
LONGEST_METADATA = 64_000_000
"""Bytes of a chunk, and of its unpacked text, beyond which it is not taken for metadata."""


class TrailingMetadata(NamedTuple):
    """EXIF and XMP behind the pixels; None where there is none."""

    exif: bytes | None = None
    xmp: bytes | None = None


def trailing_metadata(file: BinaryIO) -> TrailingMetadata:
    """Find what stands behind the pixels of a PNG without decoding them; `file` stands where it stood.

    A damaged file gives what was found before the damage: it is refused when it is read.
    """
    position = file.tell()
    try:
        return _trailing_metadata(file)
    finally:
        file.seek(position)


def _trailing_metadata(file: BinaryIO) -> TrailingMetadata:
    result, behind = TrailingMetadata(), False
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        behind = behind or kind == b"IDAT"
        if behind and kind in (b"eXIf", b"iTXt") and length <= LONGEST_METADATA:
            data = file.read(length)
            if len(data) < length:
                break
            if kind == b"eXIf":
                result = result._replace(exif=b"Exif\0\0" + data)
            elif xmp := _xmp_of(data):
                result = result._replace(xmp=xmp)
            length = 0
        file.seek(length + 4, os.SEEK_CUR)
    return result


def _xmp_of(text: bytes) -> bytes | None:
    """The XMP of an iTXt chunk: keyword, two bytes about compression, language, translated keyword, text."""
    keyword, _, rest = text.partition(b"\0")
    if keyword != XMP_KEYWORD or len(rest) < 2:
        return None
    packed, method = rest[0], rest[1]
    *_, content = rest[2:].split(b"\0", 2)
    if not packed:
        return content
    if method != 0:
        return None
    try:
        return zlib.decompressobj().decompress(content, LONGEST_METADATA)
    except zlib.error:
        return None
