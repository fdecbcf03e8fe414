"""Image files to arrays and back, losing neither bits nor metadata; what cannot be kept is refused in a sentence.

8-bit files, 16-bit gray and float gray go through Pillow. Pillow would silently cut 16-bit colour to 8 bits: such
files, and float colour, go through libvips (extra `io`).
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin, TiffTags, UnidentifiedImageError

from atd.images import tiff
from atd.images.exif import lasting_exif
from atd.images.image import Header, ImageError, Metadata, Picture, SaveOptions, check_unit_range
from atd.images.vips import metadata_of_vips, open_vips, probe_vips, read_vips, write_vips

SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
"""File name endings that can be written, and read."""
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")

JPEG_XMP_BYTES = 65_000
"""XMP beyond this does not fit into one segment of a JPEG."""


def read_image(path: str | os.PathLike[str], *, eight_bit: bool = False) -> Picture:
    """Decode an image file.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP, PPM or a still GIF; recognised by content, not by name.
        eight_bit: read 16-bit colour as 8-bit, with a warning, instead of through extra `io`.

    Raises:
        ImageError: not an image, broken, animated, of several pages, or of a kind that would lose something.
        OSError: the file cannot be opened.
    """
    path = Path(path)
    with _as_image_errors(path):
        image = _open(path)
        if image is None:
            return read_vips(path)
        with image:
            format_name = "JPEG" if image.format == "MPO" else image.format or "PNG"
            if _deep_colour(image):
                if image.format == "PPM" and not eight_bit:
                    raise ImageError(f"{path}: PPM of 16 bits is not read: convert it to PNG or TIFF first")
                if not eight_bit:
                    return replace(read_vips(path, _metadata(image)), format=format_name)
                warnings.warn(f"{path}: 16-bit colour is read with 8 bits, as asked", stacklevel=2)
            return replace(from_pil(image), format=format_name)


def probe(path: str | os.PathLike[str], *, eight_bit: bool = False) -> Header:
    """Size, channels and sample type of the picture that `read_image` would give, without decoding it."""
    path = Path(path)
    with _as_image_errors(path):
        image = _open(path)
        if image is None:
            return probe_vips(path)
        with image:
            keyed = "transparency" in image.info
            channels = {"L": 1, "1": 1, "LA": 2, "La": 2, "RGBA": 4, "RGBa": 4, "PA": 4}.get(image.mode, 3)
            if image.mode == "F" or image.mode.startswith("I"):
                channels = 1
            if keyed and channels in (1, 3):
                channels += 1
            deep = image.mode.startswith("I") or (_deep_colour(image) and not eight_bit)
            dtype = np.float32 if image.mode == "F" else np.uint16 if deep else np.uint8
            width, height = image.size
            turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            if turned and image.format != "TIFF":
                width, height = height, width
            return Header((height, width, channels), np.dtype(dtype))


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """Profile, EXIF, XMP and resolution from the header of a file that may be too large to decode."""
    path = Path(path)
    with _as_image_errors(path):
        image = _open(path)
        if image is None:
            return metadata_of_vips(open_vips(path))
        with image:
            return _metadata(image, header_only=True)


def from_pil(image: Image.Image) -> Picture:
    """The pixels and metadata of a Pillow image, in the nearest of the layouts that `Picture` knows.

    Palettes become RGB or RGBA, 1-bit becomes gray, CMYK becomes RGB by its profile. Orientation is applied.
    """
    metadata = _metadata(image)
    format_name = image.format or "PNG"
    # Loading first: Pillow turns TIFF upright while it loads, and then has no orientation to apply any more.
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    mode = image.mode
    keyed = "transparency" in image.info
    if mode in ("P", "PA"):
        image = image.convert("RGBA" if keyed or mode == "PA" else "RGB")
    elif mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    elif mode in ("1", "L", "RGB") and keyed:
        image = image.convert("RGBA" if mode == "RGB" else "LA")
    elif mode == "1":
        image = image.convert("L")
    elif mode == "YCbCr" or mode == "RGBX":
        image = image.convert("RGB")
    elif mode == "CMYK":
        image = _cmyk_to_srgb(image, metadata.icc)
        metadata = replace(metadata, icc=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    elif mode == "I" or mode.startswith("I;16"):
        return Picture(_gray16(image), metadata, format_name)
    elif mode not in ("L", "LA", "RGB", "RGBA", "F"):
        raise ImageError(f"images of mode {mode} cannot be restored: convert it to RGB or gray first")
    pixels = np.array(image)
    if mode == "F":
        check_unit_range(pixels)
    return Picture(pixels.reshape(*pixels.shape[:2], -1), metadata, format_name)


def check_pil(picture: Picture) -> None:
    """Refuse what Pillow's images have no mode for."""
    channels, dtype = picture.pixels.shape[2], picture.pixels.dtype
    if dtype != np.uint8 and channels > 1:
        raise ImageError(f"Pillow has no image of {channels} channels of {dtype}: use restore_file, or pass an array")


def to_pil(picture: Picture) -> Image.Image:
    """A Pillow image with the metadata in `info`; 16-bit and float colour do not exist there and are an ImageError."""
    check_pil(picture)
    pixels = picture.pixels
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    values = {
        "icc_profile": picture.metadata.icc,
        "exif": picture.metadata.exif,
        "xmp": picture.metadata.xmp,
        "dpi": picture.metadata.dpi,
    }
    image.info.update({key: value for key, value in values.items() if value is not None})
    return image


def check_writable(path: Path, pixels_dtype: np.dtype, channels: int, height: int, width: int) -> str:
    """The format that the ending of `path` names, after refusing what the format cannot hold."""
    name = SUFFIXES.get(path.suffix.lower())
    if name is None:
        raise ImageError(f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    if channels in (2, 4) and name in ("JPEG", "BMP"):
        raise ImageError(f"{path}: {name} cannot hold transparency; write png, webp or tiff")
    if pixels_dtype.kind == "f" and name != "TIFF":
        raise ImageError(f"{path}: {name} cannot hold float samples; write tiff")
    limit = {"JPEG": 65_535, "WEBP": 16_383}.get(name)
    if limit is not None and max(height, width) > limit:
        raise ImageError(f"{path}: {name} holds at most {limit} pixels a side, the result has {width}x{height}")
    return name


def write_image(path: str | os.PathLike[str], picture: Picture, options: SaveOptions | None = None) -> None:
    """Encode `picture` in the format that the ending of `path` names; the file appears complete or not at all.

    JPEG, WebP and BMP hold 8 bits: 16-bit samples are rounded to 8 with a warning.
    """
    path = Path(path)
    options = options or SaveOptions()
    height, width, channels = picture.pixels.shape
    name = check_writable(path, picture.pixels.dtype, channels, height, width)
    if picture.pixels.dtype == np.uint16 and name not in ("PNG", "TIFF"):
        warnings.warn(f"{path}: {name} holds 8 bits, the 16-bit samples are rounded to 8", stacklevel=2)
        picture = replace(picture, pixels=np.rint(picture.pixels / np.float32(257)).astype(np.uint8))
    if left_out := _cannot_hold(name, picture.metadata):
        warnings.warn(f"{path}: {name} cannot hold the {' and '.join(left_out)}, left out", stacklevel=2)
    with atomic(path) as temporary:
        if picture.pixels.dtype != np.uint8 and channels > 1:
            write_vips(temporary, picture, name)
        else:
            with temporary.open("wb") as file:
                to_pil(replace(picture, metadata=Metadata())).save(
                    file, format=name, **_save_arguments(picture, name, options)
                )
        if name == "TIFF" and picture.metadata.exif:
            tiff.add_exif(temporary, picture.metadata.exif)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; renamed to `path` when the block ends well, removed when it does not."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_ident()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _as_image_errors(path: Path) -> Iterator[None]:
    """Decoders raise whatever they stumble over; callers get one exception type and one sentence."""
    try:
        yield
    except ImageError as error:
        raise error if str(path) in str(error) else ImageError(f"{path}: {error}") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path} cannot be decoded, it is broken or cut short ({reason})") from error


def _open(path: Path) -> Image.Image | None:
    """The lazily decoded file; None where only libvips can read it: float colour and files beyond Pillow's limit."""
    if path.is_dir():
        raise ImageError(f"{path} is a folder, expected an image file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes)")
    try:
        image = Image.open(path, formats=READABLE)
    except Image.DecompressionBombError:
        return None
    except UnidentifiedImageError as error:
        if _is_tiff(path):
            return None
        raise ImageError(f"{path} is not an image in a format that can be read ({', '.join(READABLE)})") from error
    count = getattr(image, "n_frames", 1)
    # The further images of an MPO, as phones write it, are previews or depth maps.
    if count > 1 and image.format != "MPO":
        what = "pages" if image.format == "TIFF" else "frames (an animation)"
        image.close()
        raise ImageError(f"{path} has {count} {what}; only single images are restored")
    return image


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _deep_colour(image: Image.Image) -> bool:
    """Whether the file has more than 8 bits a sample, which Pillow would cut for the mode it reads it in."""
    if image.mode not in ("LA", "RGB", "RGBA", "P", "CMYK", "La", "RGBa", "RGBX"):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
        return max(bits) > 8
    if image.format == "PPM":
        return any(isinstance(value, int) and value > 255 for value in _decoder_arguments(image))
    return any(";16" in str(value) for value in _decoder_arguments(image))


def _decoder_arguments(image: Image.Image) -> list[Any]:
    """What Pillow tells its decoders: among it the raw mode, or the largest sample of a PPM."""
    arguments = [tile[3] for tile in getattr(image, "tile", ())]
    return [value for entry in arguments for value in (entry if isinstance(entry, tuple) else (entry,))]


def _metadata(image: Image.Image, *, header_only: bool = False) -> Metadata:
    """What the file says beside its pixels; `header_only` does without what a PNG says after them."""
    # Pillow's own getexif of a PNG decodes it, in case EXIF follows the pixels.
    exif = Image.Image.getexif(image) if header_only and image.format == "PNG" else image.getexif()
    info = image.info
    dpi = info.get("dpi")
    resolution = None
    if isinstance(dpi, tuple) and len(dpi) == 2:
        with suppress(TypeError, ValueError, ZeroDivisionError):
            values = (float(dpi[0]), float(dpi[1]))
            resolution = values if min(values) > 0 and max(values) < 1e6 else None
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
    return Metadata(
        icc=info.get("icc_profile") or None,
        exif=lasting_exif(exif, from_tiff=isinstance(image, TiffImagePlugin.TiffImageFile)),
        xmp=_without_orientation(xmp.encode() if isinstance(xmp, str) else xmp) if xmp else None,
        dpi=resolution,
    )


def _without_orientation(xmp: bytes) -> bytes:
    return re.sub(rb"""tiff:Orientation=(["'])\d\1|<tiff:Orientation>\d</tiff:Orientation>""", b"", xmp)


def _gray16(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    if image.mode == "I" and (pixels.min() < 0 or pixels.max() > 65_535):
        raise ImageError("32-bit integer samples beyond 65535 cannot be restored: convert the image to 16 bits first")
    gray = pixels.astype(np.uint16)[:, :, None]
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray = np.concatenate((gray, np.where(gray == key, 0, 65_535).astype(np.uint16)), axis=2)
    return gray


def _cmyk_to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    if icc is None:
        raise ImageError("it is CMYK without a colour profile, so its colours are not known: convert it to RGB first")
    try:
        converted = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, TypeError) as error:
        raise ImageError("its CMYK profile cannot be used: convert the image to RGB first") from error
    assert converted is not None
    return converted


def _cannot_hold(name: str, metadata: Metadata) -> list[str]:
    if name == "BMP":
        parts = {"colour profile": metadata.icc, "EXIF": metadata.exif, "XMP": metadata.xmp}
        return [part for part, value in parts.items() if value]
    too_long = name == "JPEG" and len(metadata.xmp or b"") > JPEG_XMP_BYTES
    return [f"XMP of {len(metadata.xmp or b'')} bytes"] if too_long else []


def _save_arguments(picture: Picture, name: str, options: SaveOptions) -> dict[str, Any]:
    metadata = picture.metadata
    arguments: dict[str, Any] = {}
    if metadata.dpi and name != "WEBP":
        arguments["dpi"] = metadata.dpi
    if name == "BMP":
        return arguments
    if metadata.icc:
        arguments["icc_profile"] = metadata.icc
    if metadata.exif and name != "TIFF":
        arguments["exif"] = metadata.exif
    if name == "PNG":
        info = PngImagePlugin.PngInfo()
        if metadata.xmp:
            info.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"), zip=len(metadata.xmp) > 4096)
        arguments["pnginfo"] = info
    elif name == "TIFF":
        arguments["compression"] = "tiff_adobe_deflate"
        if metadata.xmp:
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            tags.tagtype[TiffImagePlugin.XMP] = TiffTags.BYTE
            tags[TiffImagePlugin.XMP] = metadata.xmp
            arguments["tiffinfo"] = tags
    elif metadata.xmp and not (name == "JPEG" and len(metadata.xmp) > JPEG_XMP_BYTES):
        arguments["xmp"] = metadata.xmp
    if name == "JPEG":
        subsampling = {"444": "4:4:4", "422": "4:2:2", "420": "4:2:0"}[options.subsampling]
        arguments |= {"quality": options.quality or 95, "subsampling": subsampling, "optimize": True}
    elif name == "WEBP":
        arguments |= {"lossless": True} if options.quality is None else {"quality": options.quality}
        # Otherwise the encoder discards the colour under transparent pixels.
        arguments["exact"] = True
    return arguments
