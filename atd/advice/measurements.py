"""What can be measured in one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, JpegImagePlugin

from atd.advice import compression, enlargement
from atd.advice.noise import noise_level
from atd.advice.windows import Samples, intensities, luma, spread_windows
from atd.images.image import SAMPLE_PEAKS, ImageData

SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
"""Pillow's numbers for how JPEG stores colour."""
LARGEST_CHROMA = 2
"""Difference of channels, of 255, up to which a colour file is gray."""
EARLIER_BELOW = 5
"""Qualities by which an earlier compression must lie below that of the file to be told."""
BLOCKY_BELOW = 30
"""JPEG quality below which blocks are as regular as the pixels of an enlarged picture."""
_WINDOW, _WINDOWS = 256, 16


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What lossy compression a picture went through.

    kind         "JPEG" or "WebP"
    quality      libjpeg's, 1 to 100; None: the file does not say (WebP)
    source       where the quality was read: "tables" of the file, or "pixels" that were decoded before
    exact        the tables are libjpeg's; otherwise `quality` is that of its nearest ones
    subsampling  of colour: "4:4:4", "4:2:2", "4:2:0"; None: not known, or gray
    earlier      a quality below `quality` at which the pixels were compressed before; None: none was found
    """

    kind: Literal["JPEG", "WebP"]
    quality: int | None = None
    source: Literal["tables", "pixels"] = "tables"
    exact: bool = False
    subsampling: str | None = None
    earlier: int | None = None


@dataclass(frozen=True, kw_only=True)
class Noise:
    """White noise, as standard deviations on the scale of 0 to 255; None: it cannot be measured in this picture.

    luma    in the brightness; in a gray picture, in its samples
    colour  that which differs between the channels, in each of them; None for gray pictures
    """

    luma: float | None = None
    colour: float | None = None

    @property
    def strength(self) -> float | None:
        """As one number: the stronger of the two."""
        return max((value for value in (self.luma, self.colour) if value is not None), default=None)


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What can be measured in one picture.

    format      Pillow's name of the file's format; None: not a file
    width       of the upright picture, in pixels
    height      likewise
    channels    1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha
    bits        of a sample: 8, 16, 32 (float)
    gray        the content is gray, whatever the number of channels
    compression what lossy compression it went through; None: no trace of one
    noise       white noise
    resolution  whether it was enlarged or is soft; None: it cannot be told, for want of size or contrast,
            or for the blocks of strong JPEG compression
    """

    format: str | None
    width: int
    height: int
    channels: int
    bits: int
    gray: bool
    compression: Compression | None
    noise: Noise
    resolution: enlargement.Resolution | None


def measure(image: ImageData, *, header: Image.Image | None, lossy_webp: bool = False) -> Measurements:
    """Measure a decoded picture.

    Args:
        image: the picture.
        header: the file as Pillow opens it, for what its header says; None for arrays.
        lossy_webp: the file is WebP that was not stored losslessly.
    """
    pixels = image.pixels
    height, width, channels = pixels.shape
    peak = SAMPLE_PEAKS.get(pixels.dtype, 1)
    colour = pixels[:, :, : 1 if channels <= 2 else 3]
    gray = channels <= 2 or _is_gray(colour, LARGEST_CHROMA * peak / 255)
    windows = [
        intensities(window[:, :, :1] if gray else window, peak)
        for window in spread_windows(colour, _WINDOW, _WINDOWS, align=8)
    ]
    brightness = [luma(window) for window in windows]
    lossy = Compression(kind="WebP") if lossy_webp else _jpeg(header, brightness, gray)
    quality = lossy and (lossy.earlier or lossy.quality)
    blocky = quality is not None and quality < BLOCKY_BELOW
    return Measurements(
        format=image.format if header is not None else None,
        width=width,
        height=height,
        channels=channels,
        bits=pixels.dtype.itemsize * 8,
        gray=gray,
        compression=lossy,
        noise=_noise(windows, brightness),
        resolution=None if blocky else enlargement.resolution(brightness),
    )


def _is_gray(colour: np.ndarray, tolerance: float) -> bool:
    samples = colour if colour.dtype.kind == "f" else colour.astype(np.int32)
    return bool((samples.max(axis=2) - samples.min(axis=2)).max(initial=0) <= tolerance)


def _noise(windows: list[Samples], brightness: list[Samples]) -> Noise:
    gray = windows[0].shape[2] == 1
    return Noise(
        luma=noise_level([window[:, :, None] for window in brightness]),
        colour=None if gray else noise_level(windows),
    )


def _jpeg(header: Image.Image | None, brightness: list[Samples], gray: bool) -> Compression | None:
    of_pixels = compression.quality_of_pixels(brightness)
    if isinstance(header, JpegImagePlugin.JpegImageFile) and header.quantization:
        tables = header.quantization
        quality, exact = compression.quality_of_table(tables[min(tables)])
        earlier = of_pixels if of_pixels is not None and of_pixels <= quality - EARLIER_BELOW else None
        sampling = None if gray and header.layers == 1 else SUBSAMPLINGS.get(JpegImagePlugin.get_sampling(header))
        return Compression(
            kind="JPEG", quality=quality, source="tables", exact=exact, subsampling=sampling, earlier=earlier
        )
    return None if of_pixels is None else Compression(kind="JPEG", quality=of_pixels, source="pixels")
