"""Image files to arrays and back, losing neither bits nor metadata; what cannot be kept is refused in a sentence.

8-bit files, 16-bit gray and float gray go through Pillow. Pillow would silently cut 16-bit colour to 8 bits: such
files, and float colour, go through libvips (extra `io`).
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin, TiffTags, UnidentifiedImageError

from atd.errors import ImageError
from atd.images.decoding import decoding
from atd.images.exif import add_exif_to_tiff, lasting_exif
from atd.images.image import ImageData, ImageHeader, Metadata, SaveOptions, check_unit_range, narrowed
from atd.images.integrity import PNG_SIGNATURE, check_header, check_whole, is_tiff
from atd.images.png import trailing_metadata
from atd.images.vips import VipsFile, encode_vips, regions_obstacle
from atd.system import atomic_write, check_exists, warn_caller

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
READABLE_SUFFIXES = (*SUFFIXES, ".gif", ".ppm", ".pgm", ".pnm")
"""Endings of the files that are taken from a folder; a file named itself may have any."""
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")

LATE_ORIENTATION = "libvips does not see an orientation that a PNG names after its pixels"

JPEG_XMP_BYTES = 65_000
"""XMP beyond this does not fit into one segment of a JPEG."""


class ImageFile:
    """An image file that is open: its header is known, its pixels are not decoded yet. A context manager.

    Attributes:
        path: the file.
        header: size, channels and sample type of what `decode` gives.
    """

    def __init__(self, path: str | os.PathLike[str], *, eight_bit: bool = False) -> None:
        """Open `path`; arguments and errors are those of `read_image`."""
        self.path = Path(path)
        self.eight_bit = eight_bit
        self._vips: VipsFile | None = None
        self._late_orientation = 1
        check_exists(self.path)
        with decoding(self.path):
            self._pillow = _open_pillow(self.path)
            self._check(check_header)
            if self._pillow is None:
                self._vips = VipsFile(self.path)
                self.header = self._vips.header
                if _late_orientation_of(self.path) != 1:
                    raise ImageError(f"{LATE_ORIENTATION}: save it anew first")
            else:
                if self._pillow.format == "PNG":
                    self._late_orientation = _add_trailing_metadata(self._pillow)
                self.header = _header_of_pillow(self._pillow, eight_bit)

    def decode(self) -> ImageData:
        """The pixels and metadata; once."""
        with decoding(self.path):
            self._check(check_whole)
            if self._vips is not None:
                return self._vips.decode()
            image = self._pillow
            assert image is not None
            format_name = "JPEG" if image.format == "MPO" else image.format or "PNG"
            if not _is_deep_colour(image):
                return replace(from_pil(image), format=format_name)
            if not self.eight_bit:
                if image.format == "PPM":
                    raise ImageError(f"{self.path}: PPM of 16 bits is not read: convert it to PNG or TIFF first")
                decoded = VipsFile(self.path).decode(_metadata(image))
                return replace(decoded, pixels=_upright(decoded.pixels, self._late_orientation), format=format_name)
            warn_caller(f"{self.path}: 16-bit colour is read with 8 bits, as asked")
            return replace(from_pil(image), format=format_name)

    def metadata(self) -> Metadata:
        """Profile, EXIF, XMP and resolution from the header alone, of a file that may be too large to decode."""
        with decoding(self.path):
            if self._vips is not None:
                return self._vips.metadata()
            assert self._pillow is not None
            return _metadata(self._pillow, header_only=True)

    def regions_obstacle(self) -> str | None:
        """Why the file cannot be read by regions, in words; None where it can. Needs libvips."""
        if self._late_orientation != 1:
            return LATE_ORIENTATION
        return regions_obstacle(self.path, self.header, eight_bit=self.eight_bit)

    def _check(self, check: Callable[[BinaryIO, Path], None]) -> None:
        """Run a check on the file as Pillow holds it open, or open it where only libvips does."""
        held: BinaryIO | None = getattr(self._pillow, "fp", None)
        if held is not None:
            return check(held, self.path)
        with self.path.open("rb") as file:
            return check(file, self.path)

    def close(self) -> None:
        """Close the file; what was decoded stays."""
        if self._pillow is not None:
            self._pillow.close()
        self._vips = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_image(path: str | os.PathLike[str], *, eight_bit: bool = False) -> ImageFile:
    """Open an image file and read its header; arguments and errors are those of `read_image`."""
    return ImageFile(path, eight_bit=eight_bit)


def read_image(path: str | os.PathLike[str], *, eight_bit: bool = False) -> ImageData:
    """Decode an image file.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP, PPM or a still GIF; recognised by content, not by name.
        eight_bit: read 16-bit colour as 8-bit, with a warning, instead of through extra `io`.

    Raises:
        ImageError: not an image, broken, animated, of several pages, or of a kind that would lose something.
        MissingExtraError: only libvips reads such a file without loss, and it is not installed.
        OSError: the file is not there (a `DataNotFoundError`) or cannot be opened.
    """
    with open_image(path, eight_bit=eight_bit) as file:
        return file.decode()


def probe(path: str | os.PathLike[str], *, eight_bit: bool = False) -> ImageHeader:
    """Size, channels and sample type of what `read_image` would give, without decoding it."""
    with open_image(path, eight_bit=eight_bit) as file:
        return file.header


def _header_of_pillow(image: Image.Image, eight_bit: bool) -> ImageHeader:
    channels = {"L": 1, "1": 1, "LA": 2, "La": 2, "RGBA": 4, "RGBa": 4, "PA": 4}.get(image.mode, 3)
    if image.mode == "F" or image.mode.startswith("I"):
        channels = 1
    if "transparency" in image.info and channels in (1, 3):
        channels += 1
    deep = image.mode.startswith("I") or (_is_deep_colour(image) and not eight_bit)
    dtype = np.float32 if image.mode == "F" else np.uint16 if deep else np.uint8
    width, height = image.size
    turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    if turned and image.format != "TIFF":
        width, height = height, width
    return ImageHeader((height, width, channels), np.dtype(dtype))


def from_pil(image: Image.Image) -> ImageData:
    """The pixels and metadata of a Pillow image, in the nearest of the layouts that `ImageData` knows.

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
        metadata = replace(metadata, icc=_srgb_profile().tobytes())
    elif mode == "I" or mode.startswith("I;16"):
        return ImageData(_gray16(image), metadata, format_name)
    elif mode not in ("L", "LA", "RGB", "RGBA", "F"):
        raise ImageError(f"images of mode {mode} cannot be restored: convert it to RGB or gray first")
    pixels = np.array(image)
    if mode == "F":
        check_unit_range(pixels)
    return ImageData(pixels.reshape(*pixels.shape[:2], -1), metadata, format_name)


def check_pil(header: ImageHeader) -> None:
    """Refuse, with an `ImageError`, what Pillow's images have no mode for."""
    channels, dtype = header.shape[2], header.dtype
    if dtype != np.uint8 and channels > 1:
        raise ImageError(f"Pillow has no image of {channels} channels of {dtype}: use restore_file, or pass an array")


def to_pil(image_data: ImageData) -> Image.Image:
    """A Pillow image with the metadata in `info`; 16-bit and float colour do not exist there and are an ImageError."""
    pixels = image_data.pixels
    height, width, channels = pixels.shape
    check_pil(ImageHeader((height, width, channels), pixels.dtype))
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if channels == 1 else pixels))
    values = {
        "icc_profile": image_data.metadata.icc,
        "exif": image_data.metadata.exif,
        "xmp": image_data.metadata.xmp,
        "dpi": image_data.metadata.dpi,
    }
    image.info.update({key: value for key, value in values.items() if value is not None})
    return image


def check_writable(path: Path, header: ImageHeader) -> str:
    """The format that the ending of `path` names, after refusing what the format cannot hold with an `ImageError`."""
    height, width, channels = header.shape
    name = SUFFIXES.get(path.suffix.lower())
    if name is None:
        raise ImageError(f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    if channels in (2, 4) and name in ("JPEG", "BMP"):
        raise ImageError(f"{path}: {name} cannot hold transparency; write png, webp or tiff")
    if header.dtype.kind == "f" and name != "TIFF":
        raise ImageError(f"{path}: {name} cannot hold float samples; write tiff")
    limit = {"JPEG": 65_535, "WEBP": 16_383}.get(name)
    if limit is not None and max(height, width) > limit:
        raise ImageError(f"{path}: {name} holds at most {limit} pixels a side, the result has {width}x{height}")
    return name


def write_image(path: str | os.PathLike[str], image: ImageData, options: SaveOptions | None = None) -> None:
    """Encode `image` in the format that the ending of `path` names; the file appears complete or not at all.

    JPEG, WebP and BMP hold 8 bits: 16-bit samples are rounded to 8 with a warning. So is metadata left out that a
    format cannot hold.

    Raises:
        ImageError: the format cannot hold the image.
        OSError: the file cannot be written; the error names it.
    """
    path = Path(path)
    options = options or SaveOptions()
    height, width, channels = image.pixels.shape
    format_name = check_writable(path, ImageHeader((height, width, channels), image.pixels.dtype))
    if image.pixels.dtype == np.uint16 and format_name not in ("PNG", "TIFF"):
        warn_caller(f"{path}: {format_name} holds 8 bits, the 16-bit samples are rounded to 8")
        image = replace(image, pixels=np.rint(image.pixels / np.float32(257)).astype(np.uint8))
    if left_out := _left_out(format_name, image.metadata):
        warn_caller(f"{path}: {format_name} cannot hold the {' and '.join(left_out)}, left out")
    try:
        with atomic_write(path) as temporary:
            if image.pixels.dtype != np.uint8 and channels > 1:
                encode_vips(temporary, image, format_name)
            else:
                with temporary.open("wb") as file:
                    to_pil(replace(image, metadata=Metadata())).save(
                        file, format=format_name, **_save_arguments(image.metadata, format_name, options)
                    )
            if format_name == "TIFF" and image.metadata.exif:
                add_exif_to_tiff(temporary, image.metadata.exif)
    except OSError as error:
        # Neither a full disk nor an encoder says which file it was, and the temporary name says nothing to anyone.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _open_pillow(path: Path) -> Image.Image | None:
    """The lazily decoded file; None where only libvips can read it: float colour and files beyond Pillow's limit."""
    if path.is_dir():
        raise ImageError(f"{path} is a folder, expected an image file")
    if path.exists() and not path.is_file():
        # A pipe or a device: decoders must go back and forth in a file.
        raise ImageError(f"{path} is not a regular file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes)")
    try:
        image = Image.open(path, formats=READABLE)
    except Image.DecompressionBombError:
        return None
    except UnidentifiedImageError as error:
        if is_tiff(path):
            return None
        raise ImageError(f"{path} is not an image in a format that can be read ({', '.join(READABLE)})") from error
    count = getattr(image, "n_frames", 1)
    # The further images of an MPO, as phones write it, are previews or depth maps.
    if count > 1 and image.format != "MPO":
        parts = "pages" if image.format == "TIFF" else "frames (an animation)"
        image.close()
        raise ImageError(f"{path} has {count} {parts}; only single images are restored")
    return image


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether the file has more than 8 bits a sample, which Pillow would cut for the mode it reads it in."""
    if image.mode not in ("LA", "RGB", "RGBA", "P", "CMYK", "La", "RGBa", "RGBX"):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits: tuple[int, ...] = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
        return max(bits) > 8
    if image.format == "PPM":
        return any(isinstance(value, int) and value > 255 for value in _decoder_arguments(image))
    return any(";16" in str(value) for value in _decoder_arguments(image))


def _decoder_arguments(image: Image.Image) -> list[object]:
    """What Pillow tells its decoders: among it the raw mode, or the largest sample of a PPM."""
    arguments: list[object] = []
    for tile in getattr(image, "tile", ()):
        entry: object = tile[3]
        arguments.extend(cast("tuple[object, ...]", entry) if isinstance(entry, tuple) else (entry,))
    return arguments


def _srgb_profile() -> ImageCms.ImageCmsProfile:
    # Pillow does not state the type of the profile that it makes.
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))  # pyright: ignore


def _add_trailing_metadata(image: Image.Image) -> int:
    """Add what a PNG says after its pixels to what Pillow read before them; the orientation that is among it, or 1.

    Pillow looks there when it has decoded the file, which is too late for a header, and too much for a large file.
    """
    file: BinaryIO | None = getattr(image, "fp", None)
    if file is None:
        return 1
    exif, xmp = trailing_metadata(file)
    if xmp is not None:
        image.info.setdefault("xmp", xmp)
    if exif is None or "exif" in image.info or "Raw profile type exif" in image.info:
        return 1
    image.info["exif"] = exif
    return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)


def _late_orientation_of(path: Path) -> int:
    """The orientation that a PNG names after its pixels; 1 where it does not, and for other files."""
    with path.open("rb") as file:
        if file.read(8) != PNG_SIGNATURE or (data := trailing_metadata(file).exif) is None:
            return 1
    exif = Image.Exif()
    exif.load(data)
    return exif.get(ExifTags.Base.Orientation, 1)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(h, w, c) samples turned as EXIF's orientation 1 to 8 says; a value that it does not know turns nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _metadata(image: Image.Image, *, header_only: bool = False) -> Metadata:
    """What the file says beside its pixels; `header_only` does not decode them."""
    # Pillow's own getexif of a PNG decodes it where it has not met EXIF before the pixels.
    exif = Image.Image.getexif(image) if header_only and image.format == "PNG" else image.getexif()
    info = image.info
    dpi = cast("tuple[Any, ...]", info.get("dpi"))
    resolution = None
    if isinstance(dpi, tuple) and len(dpi) == 2:  # pyright: ignore[reportUnnecessaryIsInstance]
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
    gray = (narrowed(pixels) if image.mode == "I" else pixels.astype(np.uint16))[:, :, None]
    if (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    ):
        # White is zero: Pillow turns 8 bits over, and not these.
        gray = np.uint16(65_535) - gray
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray = np.concatenate((gray, np.where(gray == key, 0, 65_535).astype(np.uint16)), axis=2)
    return gray


def _cmyk_to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    if icc is None:
        raise ImageError("it is CMYK without a colour profile, so its colours are not known: convert it to RGB first")
    try:
        converted = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(icc)), _srgb_profile(), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, TypeError) as error:
        raise ImageError("its CMYK profile cannot be used: convert the image to RGB first") from error
    assert converted is not None
    return converted


def _left_out(format_name: str, metadata: Metadata) -> list[str]:
    if format_name == "BMP":
        parts = {"colour profile": metadata.icc, "EXIF": metadata.exif, "XMP": metadata.xmp}
        return [part for part, value in parts.items() if value]
    too_long = format_name == "JPEG" and len(metadata.xmp or b"") > JPEG_XMP_BYTES
    return [f"XMP of {len(metadata.xmp or b'')} bytes"] if too_long else []


def _save_arguments(metadata: Metadata, format_name: str, options: SaveOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if metadata.dpi and format_name != "WEBP":
        arguments["dpi"] = metadata.dpi
    if format_name == "BMP":
        return arguments
    if metadata.icc:
        arguments["icc_profile"] = metadata.icc
    if metadata.exif and format_name != "TIFF":
        arguments["exif"] = metadata.exif
    if format_name == "PNG":
        info = PngImagePlugin.PngInfo()
        if metadata.xmp:
            info.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"), zip=len(metadata.xmp) > 4096)
        arguments["pnginfo"] = info
    elif format_name == "TIFF":
        arguments["compression"] = "tiff_adobe_deflate"
        if metadata.xmp:
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            tags.tagtype[TiffImagePlugin.XMP] = TiffTags.BYTE
            tags[TiffImagePlugin.XMP] = metadata.xmp
            arguments["tiffinfo"] = tags
    elif metadata.xmp and not (format_name == "JPEG" and len(metadata.xmp) > JPEG_XMP_BYTES):
        arguments["xmp"] = metadata.xmp
    if format_name == "JPEG":
        subsampling = {"444": "4:4:4", "422": "4:2:2", "420": "4:2:0"}[options.subsampling]
        arguments |= {"quality": options.quality or 95, "subsampling": subsampling, "optimize": True}
    elif format_name == "WEBP":
        arguments |= {"lossless": True} if options.quality is None else {"quality": options.quality}
        # Otherwise the encoder discards the colour under transparent pixels.
        arguments["exact"] = True
    return arguments
