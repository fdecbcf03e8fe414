"""Gray images from colour files, by the rule of this library and by that of the authors' code."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

GrayFromColour = Literal["standard", "authors"]
"""standard: the same rule for all files, rounded to the nearest level; authors: what their code makes of a file."""

GRAY_FROM_COLOUR: tuple[str, ...] = get_args(GrayFromColour)


def rounded_gray(rgb: np.ndarray) -> np.ndarray:
    """0.299 R + 0.587 G + 0.114 B of (h, w, 3) uint8, rounded to the nearest level as Pillow does: (h, w) uint8."""
    return np.asarray(Image.fromarray(rgb).convert("L"))


def opencv_gray(path: Path, rgb: np.ndarray) -> np.ndarray:
    """The gray image that OpenCV decodes with its grayscale flag from the colour file `path`: (h, w) uint8.

    It depends on the kind of the file. Of PNG, libpng makes it and cuts the fraction off, so that it is half a level
    darker on average; of JPEG it is the file's own luma; of all others OpenCV rounds, in units of 2⁻¹⁴.

    Args:
        path: the file; opened again for JPEG only.
        rgb: its pixels, (h, w, 3) uint8.
    """
    kind = path.suffix.lower()
    if kind in (".jpg", ".jpeg"):
        with Image.open(path) as image:
            image.draft("L", image.size)
            luma = np.asarray(ImageOps.exif_transpose(image))
        if luma.shape == rgb.shape[:2]:  # a file without luma, as in CMYK, stays in colour
            return luma
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    if kind == ".png":
        cut = (9797 * red + 19_234 * green + 3737 * blue) >> 15
        is_gray = (red == green) & (green == blue)
        cut[is_gray] = red[is_gray]
        return cut.astype(np.uint8)
    return ((4899 * red + 9617 * green + 1868 * blue + (1 << 13)) >> 14).astype(np.uint8)
