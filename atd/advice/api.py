"""Advice on pictures: the function behind `atd.advise` and `atd advise`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from atd.advice.findings import findings_of
from atd.advice.measurements import measure
from atd.advice.recommendations import recommend
from atd.advice.results import Advice
from atd.errors import ImageError, InputError
from atd.images import ImageData, from_pil, open_image
from atd.images.decoding import decoding
from atd.images.image import LARGEST_INPUT, array_samples


def advise(image: str | os.PathLike[str] | Image.Image | np.ndarray) -> Advice:
    """Measure what is wrong with a picture and say which networks undo it, with a command for each.

    Nothing is guessed beyond what was measured: the strength of noise and of JPEG compression, whether the content is
    gray, whether it was enlarged before. How good these estimates are stands in the documentation ("Which network for
    my picture?"). No network is loaded, and torch is not imported.

    Args:
        image: a path, a PIL image, or an array (h, w) or (h, w, 1|2|3|4) of uint8, uint16 or float in [0, 1].

    Raises:
        ImageError (a ValueError): the file cannot be read; `atd.restore` cannot read it either.
        InputError: an array that is not what is described above.
        TypeError: `image` is of none of the kinds above.
    """
    if isinstance(image, str | os.PathLike):
        return _of_file(Path(image))
    if isinstance(image, Image.Image):
        return _advice(from_pil(image), source=None, header=image)
    if isinstance(image, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
        return _advice(ImageData(_checked(image)), source=None, header=None)
    raise TypeError(f"expected a path, a PIL image or a NumPy array, got {type(image).__name__}")


def _of_file(path: Path) -> Advice:
    with open_image(path) as file:
        height, width, _ = file.header.shape
        if height * width > LARGEST_INPUT:
            raise ImageError(f"{path} has {width}x{height} pixels, more than are looked at: ask for a part of it")
        decoded = file.decode()
    try:
        with decoding(path), Image.open(path) as header:
            return _advice(decoded, source=str(path), header=header, lossy_webp=_is_lossy_webp(path))
    except Image.DecompressionBombError:
        return _advice(decoded, source=str(path), header=None)


def _advice(decoded: ImageData, *, source: str | None, header: Image.Image | None, lossy_webp: bool = False) -> Advice:
    measurements = measure(decoded, header=header, lossy_webp=lossy_webp)
    verdict, summary, recommendations = recommend(measurements, source)
    return Advice(
        source=source,
        measurements=measurements,
        findings=findings_of(measurements),
        verdict=verdict,
        summary=summary,
        recommendations=tuple(recommendations),
    )


def _checked(array: np.ndarray) -> np.ndarray:
    """(h, w, c) of a type that is known; floats lie in [0, 1]."""
    pixels = array_samples(array)
    if pixels.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise InputError(f"expected floats in [0, 1], got {pixels.min():g} to {pixels.max():g}")
    return pixels


def _is_lossy_webp(path: Path) -> bool:
    """Whether a WebP file holds a VP8 key frame rather than VP8L (RFC 9649); False for other files."""
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"WEBP":
            return False
        while len(head := file.read(8)) == 8:
            if head[:4] in (b"VP8 ", b"VP8L"):
                return head[:4] == b"VP8 "
            length = int.from_bytes(head[4:], "little")
            file.seek(length + length % 2, os.SEEK_CUR)
    return False
