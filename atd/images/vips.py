"""Files through libvips (extra `io`): colour of more than 8 bits, and images too large to hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atd.images.exif import lasting_exif
from atd.images.image import Header, ImageError, Metadata, Picture, check_unit_range

DTYPES = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}
CLASSIC_TIFF_BYTES = 3_900_000_000
"""Samples beyond which a TIFF is written as BigTIFF; offsets of the classic one end at 4 GiB."""


def import_vips(purpose: str) -> Any:
    """The module pyvips, or a sentence that names the extra."""
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise ImageError(f"{purpose} needs libvips: pip install 'atd-restoration[io]'") from error
    return pyvips


def open_vips(path: Path, access: str = "sequential") -> Any:
    """An upright pyvips image of a single page, 1 to 4 channels, and uchar, ushort or float samples."""
    pyvips = import_vips(f"{path}: reading it")
    # libvips remembers files by name: without revalidate, one that has changed since would be read as it was.
    image = pyvips.Image.new_from_file(str(path), fail_on="truncated", access=access, revalidate=True)
    pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if pages > 1:
        raise ImageError(f"{path} has {pages} pages; only single images are restored")
    if image.format not in DTYPES or image.bands not in (1, 2, 3, 4):
        raise ImageError(f"{path}: {image.bands} channels of {image.format} samples cannot be restored")
    if image.interpretation in ("cmyk", "lab", "labs", "labq", "xyz"):
        raise ImageError(f"{path}: {image.interpretation} images cannot be restored: convert it to RGB first")
    return image.autorot()


def probe_vips(path: Path) -> Header:
    """Size, channels and sample type, from the header."""
    image = open_vips(path)
    return Header((image.height, image.width, image.bands), np.dtype(DTYPES[image.format]))


def read_vips(path: Path, metadata: Metadata | None = None) -> Picture:
    """Decode a PNG, PPM or TIFF of any depth; `metadata` wins over what libvips reports."""
    image = open_vips(path)
    pixels = image.numpy()
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.dtype == np.float32:
        check_unit_range(pixels)
    return Picture(pixels, metadata or metadata_of_vips(image), "TIFF")


def metadata_of_vips(image: Any) -> Metadata:
    """Profile, EXIF, XMP and resolution of a pyvips image."""

    def blob(name: str) -> bytes | None:
        return bytes(image.get(name)) if image.get_typeof(name) else None

    dpi = (image.xres * 25.4, image.yres * 25.4)
    exif = Image.Exif()
    if data := blob("exif-data"):
        exif.load(data)
    return Metadata(
        icc=blob("icc-profile-data"),
        exif=lasting_exif(exif),
        xmp=blob("xmp-data"),
        # libvips says one pixel a millimetre where a file says nothing.
        dpi=dpi if min(dpi) > 25.5 else None,
    )


def vips_with_metadata(image: Any, metadata: Metadata) -> Any:
    """`image` with the metadata attached, for the savers of libvips."""
    pyvips = import_vips("writing metadata")
    resolution = {"xres": metadata.dpi[0] / 25.4, "yres": metadata.dpi[1] / 25.4} if metadata.dpi else {}
    image = image.copy(**resolution)
    values = {"icc-profile-data": metadata.icc, "exif-data": metadata.exif, "xmp-data": metadata.xmp}
    for name, value in values.items():
        if value is not None:
            image.set_type(pyvips.GValue.blob_type, name, value)
    return image


def write_vips(path: Path, picture: Picture, name: str) -> None:
    """Encode 16-bit or float pixels of several channels as PNG or TIFF."""
    pyvips = import_vips(f"{path}: writing more than 8 bits per colour sample")
    pixels = picture.pixels
    channels = pixels.shape[2]
    interpretation = {"u": {2: "grey16", 3: "rgb16", 4: "rgb16"}, "f": {2: "b-w", 3: "scrgb", 4: "scrgb"}}
    image = pyvips.Image.new_from_array(
        np.ascontiguousarray(pixels), interpretation=interpretation[pixels.dtype.kind][channels]
    )
    save_vips(vips_with_metadata(image, picture.metadata), path, name)


def save_vips(image: Any, path: Path, name: str) -> None:
    """Encode a pyvips image as PNG or TIFF (BigTIFF where 4 GiB would not do)."""
    if name == "PNG":
        image.pngsave(str(path), keep="all")
    else:
        size = image.width * image.height * image.bands * np.dtype(DTYPES[image.format]).itemsize
        big = size > CLASSIC_TIFF_BYTES
        image.tiffsave(str(path), compression="deflate", predictor="horizontal", bigtiff=big, keep="all")
