"""Small intact images of every format, mode, depth and codec that is read, made by Pillow, tifffile and libvips."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image, ImageCms

SIZE = (43, 37)
"""Width and height: odd, and more than the blocks of every codec."""


class Seed(NamedTuple):
    """A file's content, and how it may differ from what another decoder makes of it."""

    name: str
    data: bytes
    is_exact: bool = True
    """Whether the codec leaves decoders no choice; JPEG and lossy WebP do."""

    @property
    def ending(self) -> str:
        return "." + self.name.partition(" ")[0]


def photo(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Smooth colours with some noise: what codecs are made for, and nowhere black."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    channels = [60 + rows, 200 - columns, 80 + (rows + columns) // 2]
    noise = np.random.default_rng(0).integers(0, 12, (size[1], size[0], 3))
    image = Image.fromarray((np.stack(channels, -1) + noise).clip(0, 255).astype(np.uint8))
    if mode in ("LA", "La", "RGBA", "RGBa"):
        image.putalpha(Image.fromarray((255 - columns * 4).clip(0, 255).astype(np.uint8)))
        return image.convert("RGBA" if mode == "RGBa" else "LA" if mode == "La" else mode).convert(mode)
    return image.convert(mode)


def deep(channels: int, dtype: type[np.generic] = np.uint16) -> np.ndarray:
    """(h, w, c) of more than 8 bits, each sample different from all of its neighbours."""
    values = np.random.default_rng(1).integers(1, 65_536, (SIZE[1], SIZE[0], channels))
    return (values / 65_535).astype(dtype) if np.dtype(dtype).kind == "f" else values.astype(dtype)


def png(pixels: np.ndarray) -> bytes:
    """A PNG of 8 or 16 bits without filters, after its specification."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    packed = zlib.compress(rows)
    middle = len(packed) // 2
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", packed[:middle]), chunk(b"IDAT", packed[middle:]), chunk(b"IEND", b""))
    )


@cache
def cmyk_profile() -> bytes:
    """A profile of a printing process, the one that libvips brings."""
    import pyvips

    image = pyvips.Image.black(8, 8, bands=3).copy(interpretation="srgb")
    return bytes(image.icc_transform("cmyk", input_profile="srgb").get("icc-profile-data"))


def _saved(image: Image.Image, format_name: str, **arguments: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **arguments)
    return file.getvalue()


def _written(pixels: np.ndarray, **arguments: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **arguments)
    return file.getvalue()


def _by_libvips(save: str, **arguments: object) -> bytes:
    import pyvips

    image = pyvips.Image.new_from_array(np.asarray(photo()), interpretation="srgb")
    return bytes(getattr(image, f"{save}_buffer")(**arguments))


def _deep_by_libvips(**arguments: object) -> bytes:
    import pyvips

    return bytes(pyvips.Image.new_from_array(deep(3), interpretation="rgb16").tiffsave_buffer(**arguments))


def _tiled(image: Image.Image, codec: str, predictor: str = "none", **arguments: object) -> bytes:
    """A TIFF in tiles of 16x16 pixels by libvips, of the mode that `image` has."""
    import pyvips

    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    colours = pixels.reshape(*pixels.shape[:2], -1).shape[2]
    made = pyvips.Image.new_from_array(pixels, interpretation="b-w" if colours < 3 else "srgb")
    options = {"tile": True, "tile_width": 16, "tile_height": 16, "compression": codec, "predictor": predictor}
    options |= {"bitdepth": 1} if image.mode == "1" else {}
    return bytes(made.tiffsave_buffer(**options, **arguments))


TIFF_CODECS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma")


def _makers() -> dict[str, Callable[[], bytes]]:
    """A maker for each seed, by its name; the first word of which is the file's ending."""
    makers: dict[str, Callable[[], bytes]] = {}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        makers[f"png {mode}"] = lambda mode=mode: _saved(photo(mode), "PNG")
    for mode, key in (("P", 3), ("L", 99), ("RGB", photo().getpixel((3, 3)))):
        makers[f"png {mode} with a transparent colour"] = lambda mode=mode, key=key: _saved(
            photo(mode), "PNG", transparency=key
        )
    for channels in (1, 2, 3, 4):
        makers[f"png 16 bits {channels} channels"] = lambda channels=channels: png(deep(channels))
    makers["png interlaced"] = lambda: _by_libvips("pngsave", interlace=True)
    for mode in ("L", "RGB"):
        makers[f"jpg {mode}"] = lambda mode=mode: _saved(photo(mode), "JPEG", quality=90)
    makers["jpg 4:4:4"] = lambda: _saved(photo(), "JPEG", quality=95, subsampling=0)
    makers["jpg progressive"] = lambda: _saved(photo(), "JPEG", quality=60, progressive=True)
    makers["jpg restarts"] = lambda: _by_libvips("jpegsave", restart_interval=2, Q=80)
    makers["jpg CMYK"] = lambda: _saved(_separated(), "JPEG", quality=95, icc_profile=cmyk_profile())
    makers["webp lossy"] = lambda: _saved(photo(), "WEBP", quality=80)
    makers["webp lossy RGBA"] = lambda: _saved(photo("RGBA"), "WEBP", quality=80)
    for mode in ("RGB", "RGBA"):
        makers[f"webp lossless {mode}"] = lambda mode=mode: _saved(photo(mode), "WEBP", lossless=True, exact=True)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "RGBa", "YCbCr"):
        for codec in TIFF_CODECS:
            makers[f"tif {mode} {codec}"] = lambda mode=mode, codec=codec: _saved(
                photo(mode), "TIFF", compression=codec
            )
    for codec in ("group3", "group4"):
        makers[f"tif 1 {codec}"] = lambda codec=codec: _saved(photo("1"), "TIFF", compression=codec)
    for mode in ("L", "RGB", "YCbCr"):
        makers[f"tif {mode} jpeg"] = lambda mode=mode: _saved(photo(mode), "TIFF", compression="jpeg", quality=90)
    makers["tif CMYK raw"] = lambda: _saved(_separated(), "TIFF", icc_profile=cmyk_profile())
    makers["tif CMYK lzw"] = lambda: _saved(_separated(), "TIFF", compression="tiff_lzw", icc_profile=cmyk_profile())
    makers["tif 32 bits float"] = lambda: _saved(Image.fromarray(deep(1, np.float32)[..., 0]), "TIFF")
    makers["tif 32 bits float colour"] = lambda: _written(deep(3, np.float32), photometric="rgb")
    makers["tif 32 bits integer"] = lambda: _saved(Image.fromarray(deep(1, np.int32)[..., 0]), "TIFF")
    for order, name in (("<", "little"), (">", "big")):
        for channels in (1, 3, 4):
            extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
            makers[f"tif 16 bits {channels} channels {name}-endian"] = lambda c=channels, o=order, e=extra: _written(
                deep(c).squeeze(), byteorder=o, photometric="rgb" if c > 1 else "minisblack", **e
            )
        makers[f"tif RGB {name}-endian"] = lambda order=order: _written(
            np.asarray(photo()), byteorder=order, photometric="rgb"
        )
    for compression in ("lzw", "deflate", "none", "packbits"):
        makers[f"tif 16 bits 3 channels {compression}"] = lambda compression=compression: _deep_by_libvips(
            compression=compression
        )
    makers["tif 16 bits 3 channels predicted"] = lambda: _deep_by_libvips(compression="deflate", predictor="horizontal")
    for mode in ("1", "L", "LA", "RGB", "RGBA"):
        for codec in ("none", "lzw", "deflate", "packbits"):
            makers[f"tif tiled {mode} {codec}"] = lambda mode=mode, codec=codec: _tiled(photo(mode), codec)
    makers["tif tiled CCITT"] = lambda: _tiled(photo("1"), "ccittfax4")
    for mode in ("L", "RGB"):
        makers[f"tif tiled {mode} jpeg"] = lambda mode=mode: _tiled(photo(mode), "jpeg")
    makers["tif tiled predicted"] = lambda: _tiled(photo(), "deflate", predictor="horizontal")
    makers["tif tiled 16 bits"] = lambda: _deep_by_libvips(
        compression="lzw", tile=True, tile_width=16, tile_height=32, predictor="horizontal"
    )
    makers["tif tiled BigTIFF"] = lambda: _tiled(photo(), "deflate", bigtiff=True)
    makers["tif tiled separate planes"] = lambda: _written(
        np.moveaxis(np.asarray(photo()), 2, 0), photometric="rgb", planarconfig="separate", tile=(16, 16)
    )
    makers["tif tiled big-endian"] = lambda: _written(
        np.asarray(photo()), byteorder=">", photometric="rgb", tile=(32, 16), compression="zlib"
    )
    makers["tif separate planes"] = lambda: _written(
        np.moveaxis(np.asarray(photo()), 2, 0), photometric="rgb", planarconfig="separate"
    )
    makers["tif white is zero"] = lambda: _written(np.asarray(photo("L")), photometric="miniswhite")
    makers["tif 16 bits white is zero"] = lambda: _written(deep(1)[..., 0], photometric="miniswhite")
    makers["tif BigTIFF"] = lambda: _written(np.asarray(photo()), photometric="rgb", bigtiff=True)
    makers["tif strips of 5"] = lambda: _written(np.asarray(photo()), photometric="rgb", rowsperstrip=5)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        makers[f"bmp {mode}"] = lambda mode=mode: _saved(photo(mode), "BMP")
    makers["gif P"] = lambda: _saved(photo("P"), "GIF")
    makers["gif P with a transparent colour"] = lambda: _saved(photo("P"), "GIF", transparency=5)
    for mode in ("1", "L", "RGB"):
        makers[f"ppm {mode}"] = lambda mode=mode: _saved(photo(mode), "PPM")
    makers["ppm 16 bits gray"] = lambda: b"P5 %d %d 65535\n" % SIZE + deep(1).astype(">u2").tobytes()
    return makers


def _separated() -> Image.Image:
    """CMYK by the profile of the seeds."""
    converted = ImageCms.profileToProfile(
        photo(), ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(cmyk_profile())), outputMode="CMYK"
    )
    assert converted is not None
    return converted


@cache
def seeds() -> tuple[Seed, ...]:
    """All that this machine's Pillow can write; modes that a codec does not take are left out."""
    made = []
    for name, make in _makers().items():
        try:
            data = make()
        except (OSError, ValueError, RuntimeError, KeyError):
            continue
        exact = not ("jpg" in name or "jpeg" in name or "lossy" in name)
        made.append(Seed(name, data, exact))
    return tuple(made)
