"""Which part of an image's EXIF still holds for the restored image."""

from __future__ import annotations

from PIL import ExifTags, Image

from atd.images import tiff


def lasting_exif(exif: Image.Exif, *, from_tiff: bool = False) -> bytes | None:
    """EXIF without orientation, thumbnail and stored size, all of which the result contradicts; None when empty.

    Args:
        from_tiff: `exif` are all tags of a TIFF; those that say how its pixels are stored are left out too.
    """
    kept = Image.Exif()
    pointers = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
    for tag, value in exif.items():
        if tag in pointers or tag == ExifTags.Base.Orientation or (from_tiff and tag not in tiff.DESCRIPTION):
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
