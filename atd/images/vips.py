"""Files through libvips (extra `io`): colour of more than 8 bits, and images too large to hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from atd.errors import ImageError
from atd.images.exif import lasting_exif
from atd.images.image import ImageData, ImageHeader, Metadata, check_unit_range, narrowed, samples_to_tensor
from atd.images.integrity import check_whole, is_tiled_tiff, libvips_obstacle
from atd.system import disk_error, import_extra

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"uchar": np.dtype(np.uint8), "ushort": np.dtype(np.uint16), "float": np.dtype(np.float32)}
"""Sample types by libvips' name for them."""
WIDE_DTYPES = {"int": np.dtype(np.int32), "uint": np.dtype(np.uint32)}
"""Those of gray files that hold 16 bits in 32."""
CLASSIC_TIFF_BYTES = 3_900_000_000
"""Samples beyond which a TIFF is written as BigTIFF; offsets of the classic one end at 4 GiB."""


def import_vips(purpose: str) -> ModuleType:
    """The module pyvips; for want of it a `MissingExtraError`, in which `purpose` is a noun phrase."""
    return import_extra("pyvips", purpose=purpose, extra="io")


class VipsFile:
    """An image file that libvips has open: a single page, 1 to 4 channels, and uchar, ushort or float samples.

    Attributes:
        header: size, channels and sample type of the upright image.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            ImageError: the file is an image of another kind.
            MissingExtraError: libvips is not installed.
            pyvips.Error: libvips cannot read the file.
        """
        image = _open(path, "sequential")
        self.header = _header(image)
        self._image = image

    def decode(self, metadata: Metadata | None = None) -> ImageData:
        """Pixels and metadata; `metadata` wins over what libvips reports."""
        pixels = self._image.numpy()
        pixels = _checked_samples(pixels.reshape(*pixels.shape[:2], -1))
        return ImageData(pixels, metadata or self.metadata(), "TIFF")

    def metadata(self) -> Metadata:
        """Profile, EXIF, XMP and resolution."""
        image = self._image

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


def _open(path: Path, access: str) -> Any:
    pyvips = import_vips(f"reading {path}")
    if obstacle := libvips_obstacle(path):
        raise ImageError(f"{path}: {obstacle}: convert it to another compression or to PNG first")
    # libvips remembers files by name: without revalidate, one that has changed since would be read as it was. A tile of
    # TIFF that cannot be unpacked is only a warning to it; in strips, a field that it does not know is one, too.
    fail_on = "warning" if is_tiled_tiff(path) else "error"
    image = pyvips.Image.new_from_file(str(path), fail_on=fail_on, access=access, revalidate=True)
    pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if pages > 1:
        raise ImageError(f"{path} has {pages} pages; only single images are restored")
    is_wide_gray = image.format in WIDE_DTYPES and image.bands == 1
    if not is_wide_gray and (image.format not in DTYPES or image.bands not in (1, 2, 3, 4)):
        raise ImageError(f"{path}: {image.bands} channels of {image.format} samples cannot be restored")
    if image.interpretation in ("cmyk", "lab", "labs", "labq", "xyz"):
        raise ImageError(f"{path}: {image.interpretation} images cannot be restored: convert it to RGB first")
    return image.autorot()


def _header(image: Any) -> ImageHeader:
    return ImageHeader((image.height, image.width, image.bands), _sample_type(image))


def _sample_type(image: Any) -> np.dtype:
    """What `_checked_samples` makes of the samples of `image`."""
    return np.dtype(np.uint16) if image.format in WIDE_DTYPES else DTYPES[image.format]


def _checked_samples(pixels: np.ndarray) -> np.ndarray:
    """Samples as `ImageData` has them; an `ImageError` where they are beyond what it holds."""
    if pixels.dtype == np.float32:
        check_unit_range(pixels)
    return narrowed(pixels) if pixels.dtype in WIDE_DTYPES.values() else pixels


def open_regions(path: Path, header: ImageHeader, *, eight_bit: bool = False) -> Callable[[int, int, int, int], Tensor]:
    """Open an image that is too large to decode, to be read by regions.

    Args:
        header: channels and sample type to present the image in; libvips and Pillow read some files differently.
        eight_bit: `header` says 8 bits where the file has 16.

    Returns:
        ``read(top, bottom, left, right)``, which gives that region as (c, bottom-top, right-left) float32 in [0, 1].
    """
    pyvips = import_vips(f"reading {path} by regions")
    with path.open("rb") as file:
        check_whole(file, path)
    image = _open_as(path, header, eight_bit)
    region, bands = pyvips.Region.new(image), image.bands
    dtype = (DTYPES | WIDE_DTYPES)[image.format]

    def read(top: int, bottom: int, left: int, right: int) -> Tensor:
        data = region.fetch(left, top, right - left, bottom - top)
        pixels = np.frombuffer(data, dtype).reshape(bottom - top, right - left, bands)
        try:
            return samples_to_tensor(_checked_samples(pixels))
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error

    return read


def regions_obstacle(path: Path, header: ImageHeader, *, eight_bit: bool = False) -> str | None:
    """Why `open_regions` would refuse this file, in words; None where it would not."""
    pyvips = import_vips(f"reading {path} by regions")
    try:
        _open_as(path, header, eight_bit)
    except ImageError as error:
        return str(error).removeprefix(f"{path}: ")
    except pyvips.Error:
        return "libvips cannot read this format"
    return None


def _open_as(path: Path, header: ImageHeader, eight_bit: bool) -> Any:
    image = _open(path, "random")
    if (image.height, image.width) != header.shape[:2]:
        raise ImageError(f"{path}: libvips and Pillow disagree about its size: convert it to PNG first")
    return image if _header(image) == header else _as_in_header(image, header, eight_bit)


def _as_in_header(image: Any, header: ImageHeader, eight_bit: bool) -> Any:
    """Other channels or fewer bits: an alpha channel that is a palette entry, 1-bit gray, 16 bits read as 8."""
    if eight_bit and image.format == "ushort":
        image = (image >> 8).cast("uchar")
    channels = header.shape[2]
    if _sample_type(image) != header.dtype:
        raise ImageError(f"libvips reads samples of {_sample_type(image)} where Pillow reads {header.dtype}")
    if image.bands == channels:
        return image
    if image.bands > channels and channels in (1, 3):
        return image.extract_band(0, n=channels)
    if image.bands in (1, 2) and channels in (3, 4):
        colour = image.extract_band(0).bandjoin([image.extract_band(0)] * 2)
        return colour.bandjoin(image.extract_band(1)) if image.bands == 2 else colour
    raise ImageError(f"an image of {image.bands} channels was expected to have {channels}: convert it to RGB first")


def encode_vips(path: Path, image: ImageData, format_name: str) -> None:
    """Encode pixels of any depth as PNG or TIFF, metadata included."""
    pyvips = import_vips(f"writing more than 8 bits per colour sample to {path}")
    pixels = np.ascontiguousarray(image.pixels)
    interpretation = _interpretation(pixels.shape[2], pixels.dtype)
    encoded = pyvips.Image.new_from_array(pixels, interpretation=interpretation)
    _save(_with_metadata(encoded, image.metadata), path, format_name)


def encode_raw(
    raw: Path,
    header: ImageHeader,
    path: Path,
    size: tuple[int, int],
    metadata: Metadata,
    format_name: str,
) -> None:
    """Encode a file of bare samples as PNG or TIFF without holding it.

    Args:
        raw: rows of samples as `header` says, without anything else.
        path: the file to write.
        size: height and width of the result; others than those of `header` are reached by a Lanczos filter.
    """
    pyvips = import_vips(f"encoding {path} from its rows")
    height, width, channels = header.shape
    image = pyvips.Image.rawload(
        str(raw),
        width,
        height,
        channels,
        format=next(name for name, dtype in DTYPES.items() if dtype == header.dtype),
        interpretation=_interpretation(channels, header.dtype),
        access="sequential",
        revalidate=True,
    )
    if size != (height, width):
        image = image.resize(size[1] / width, vscale=size[0] / height, kernel="lanczos3")
        image = image.crop(0, 0, size[1], size[0])
    _save(_with_metadata(image, metadata), path, format_name)


def _interpretation(channels: int, dtype: np.dtype) -> str:
    gray = channels <= 2
    if dtype.kind == "f":
        return "b-w" if gray else "scrgb"
    if dtype == np.uint16:
        return "grey16" if gray else "rgb16"
    return "b-w" if gray else "srgb"


def _with_metadata(image: Any, metadata: Metadata) -> Any:
    pyvips = import_vips("writing metadata")
    resolution = {"xres": metadata.dpi[0] / 25.4, "yres": metadata.dpi[1] / 25.4} if metadata.dpi else {}
    image = image.copy(**resolution)
    values = {"icc-profile-data": metadata.icc, "exif-data": metadata.exif, "xmp-data": metadata.xmp}
    for name, value in values.items():
        if value is not None:
            image.set_type(pyvips.GValue.blob_type, name, value)
    return image


def _save(image: Any, path: Path, format_name: str) -> None:
    pyvips = import_vips(f"writing {path}")
    try:
        if format_name == "PNG":
            image.pngsave(str(path), keep="all")
        else:
            size = image.width * image.height * image.bands * DTYPES[image.format].itemsize
            big = size > CLASSIC_TIFF_BYTES
            image.tiffsave(str(path), compression="deflate", predictor="horizontal", bigtiff=big, keep="all")
    except pyvips.Error as error:
        if (told := disk_error(str(error), path)) is not None:
            raise told from error
        raise
