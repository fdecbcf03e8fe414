"""Pairs of clean and degraded crops on one sheet, for a person to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from atd.errors import InputError
from atd.system import atomic_write

SIDE = 256
"""Pixels of a crop of the clean image."""

_MOST, _COLUMNS, _GAP, _LINES, _LINE = 12, 2, 12, 3, 14


class ContactSheet:
    """Crops from the middles of pairs, clean beside degraded, which is enlarged by `scale` without interpolation."""

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self._cells: list[Image.Image] = []

    @staticmethod
    def places(count: int) -> list[int]:
        """Numbers of the images of `count` that a sheet has room for, evenly spread."""
        shown = min(count, _MOST)
        return [number * count // shown for number in range(shown)]

    def add(self, clean: np.ndarray, degraded: np.ndarray, label: str) -> None:
        """A pair of uint8 images (scale·h, scale·w, 3) and (h, w, 3), and words to stand below it."""
        side = SIDE // self.scale
        top, left = (max(length - side, 0) // 2 for length in degraded.shape[:2])
        small = degraded[top : top + side, left : left + side]
        places = (
            slice(top * self.scale, (top + side) * self.scale),
            slice(left * self.scale, (left + side) * self.scale),
        )
        enlarged = small.repeat(self.scale, 0).repeat(self.scale, 1)
        cell = Image.new("RGB", (2 * SIDE, SIDE + _LINES * _LINE), "white")
        cell.paste(Image.fromarray(np.ascontiguousarray(clean[places])), (0, 0))
        cell.paste(Image.fromarray(np.ascontiguousarray(enlarged)), (SIDE, 0))
        pen, font = ImageDraw.Draw(cell), ImageFont.load_default(11)
        for number, line in enumerate(_wrapped(label, pen, font)[:_LINES]):
            pen.text((2, SIDE + number * _LINE), line, fill="black", font=font)
        self._cells.append(cell)

    def save(self, path: Path) -> None:
        """Write the sheet as a PNG file or, by its suffix, a JPEG or WebP one.

        Raises:
            InputError: there is nothing on it, or it cannot be written under this name.
        """
        file_format = format_of(path)
        if not self._cells:
            raise InputError(f"nothing to show on {path}: none of the images could be used")
        width, height = self._cells[0].size
        rows = -(-len(self._cells) // _COLUMNS)
        columns = min(_COLUMNS, len(self._cells))
        sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP), "white")
        for number, cell in enumerate(self._cells):
            row, column = divmod(number, _COLUMNS)
            sheet.paste(cell, (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            sheet.save(temporary, file_format, quality=90)


def format_of(path: Path) -> str:
    """The file format of a sheet's name.

    Raises:
        InputError: a sheet cannot be written under this name.
    """
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
    if path.suffix.lower() not in formats:
        raise InputError(f"a contact sheet is a .png, .jpg or .webp file, got {path}")
    return formats[path.suffix.lower()]


def _wrapped(text: str, pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and pen.textlength(longer, font=font) > 2 * SIDE - 4:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
