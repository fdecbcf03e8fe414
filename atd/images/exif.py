"""EXIF: which part of it still holds for a restored image, and how it gets into a TIFF."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

DESCRIPTIVE_TAGS = (270, 271, 272, 305, 306, 315, 33432)
"""Tags that describe a TIFF's content rather than how it is stored."""


def lasting_exif(exif: Image.Exif, *, from_tiff: bool = False) -> bytes | None:
    """EXIF without orientation, thumbnail and stored size, all of which the result contradicts; None when empty.

    Args:
        from_tiff: `exif` are all tags of a TIFF; those that say how its pixels are stored are left out too.
    """
    kept = Image.Exif()
    pointers = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
    for tag, value in exif.items():
        if tag in pointers or tag == ExifTags.Base.Orientation or (from_tiff and tag not in DESCRIPTIVE_TAGS):
            continue
        kept[tag] = value
    for pointer in pointers:
        values = dict(exif.get_ifd(pointer))
        for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight):
            values.pop(tag, None)
        if values:
            kept.get_ifd(pointer).update(values)
            kept[pointer] = values
    return kept.tobytes() if len(kept) else None


def add_exif_to_tiff(path: Path, exif: bytes) -> None:
    """Add the descriptive tags and the EXIF and GPS directories of `exif` to the first page of a TIFF or BigTIFF.

    Neither libvips nor Pillow's compressed TIFF writer can store it, so it is added afterwards.
    """
    source = Image.Exif()
    source.load(exif)
    with path.open("r+b") as file:
        header = file.read(16)
        order = "<" if header[:2] == b"II" else ">"
        big = struct.unpack(order + "H", header[2:4])[0] == 43
        extra = ImageFileDirectory_v2(header if big else header[:8])
        for tag in DESCRIPTIVE_TAGS:
            if tag in source:
                extra[tag] = source[tag]
        for pointer in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if values := source.get_ifd(pointer):
                extra[pointer] = dict(values)
        if not len(extra):
            return
        number, pointer_format, entry_size = ("Q", "Q", 20) if big else ("H", "L", 12)
        pointer_at = 8 if big else 4

        def entries_at(data: bytes, position: int) -> tuple[list[bytes], bytes]:
            """The raw entries of a directory, and its link to the next one."""
            size = struct.calcsize("=" + number)
            (count,) = struct.unpack(order + number, data[position : position + size])
            first = position + size
            end = first + count * entry_size
            link = data[end : end + struct.calcsize("=" + pointer_format)]
            return [data[at : at + entry_size] for at in range(first, end, entry_size)], link

        (offset,) = struct.unpack(
            order + pointer_format, header[pointer_at : pointer_at + struct.calcsize("=" + pointer_format)]
        )
        file.seek(offset)
        old, link = entries_at(file.read(1 << 16), 0)
        end = file.seek(0, 2)
        file.write(b"\0" * (end % 2))
        end += end % 2
        # Pillow lays the new values out for this place; of its directory only the entries are used again, below.
        block = extra.tobytes(end)
        block += b"\0" * (len(block) % 2)
        new, _ = entries_at(block, 0)

        def tag_of(entry: bytes) -> int:
            return struct.unpack(order + "H", entry[:2])[0]

        replaced = {tag_of(entry) for entry in new}
        merged = sorted(new + [entry for entry in old if tag_of(entry) not in replaced], key=tag_of)
        file.write(block)
        file.write(struct.pack(order + number, len(merged)) + b"".join(merged) + link)
        # The link in the header last: until then the file is as it was.
        file.flush()
        file.seek(pointer_at)
        file.write(struct.pack(order + pointer_format, end + len(block)))
