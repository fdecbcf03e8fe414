"""Maps as images of the size of the explained one, and sheets that show many of them. Pillow and NumPy alone."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atd.explanation.maps import Explanation, LayerMaps

Colours = NDArray[np.uint8]
"""(h, w, 3), or (n, 3) where it is a list of colours."""

# Of a full circle: neighbouring numbers get hues far apart, and any number of them stays spread evenly.
_GOLDEN_ANGLE = (5**0.5 - 1) / 2
_LIGHTNESS = (0.62, 0.45, 0.75)
_DIMMED = 0.25
_PANEL = 256
_MARGIN = 8
_MOST_MEMBERS = 6


class Panel(NamedTuple):
    """An image of a sheet with what is written below it."""

    caption: str
    image: Colours
    colour: NDArray[np.uint8] | None = None
    """Of a square before the caption; None: there is none."""


def palette(entries: int) -> Colours:
    """(M, 3): a colour for every category, the same one in every layer and every picture."""
    colours = [
        colorsys.hls_to_rgb(entry * _GOLDEN_ANGLE % 1, _LIGHTNESS[entry % len(_LIGHTNESS)], 0.75)
        for entry in range(entries)
    ]
    return (np.asarray(colours) * 255).round().astype(np.uint8)


def categories(layer: LayerMaps, shape: tuple[int, int]) -> Colours:
    """The category of every pixel as its colour, for an image of height and width `shape`."""
    return palette(layer.entries)[enlarged(layer.category, layer, shape)]


def similarities(layer: LayerMaps, shape: tuple[int, int], entry: int | None = None) -> Colours:
    """`LayerMaps.similarity` as shades of gray: black at 0 and below, white at 1."""
    level = enlarged(layer.similarity(entry), layer, shape).clip(0, 1)
    return np.repeat((level * 255).round().astype(np.uint8)[..., None], 3, axis=2)


def highlighted(image: Colours, tokens: NDArray[np.bool_], layer: LayerMaps) -> Colours:
    """The image, dark and gray but for the chosen `tokens`."""
    chosen = enlarged(tokens, layer, (image.shape[0], image.shape[1]))[..., None]
    dark = (image.mean(axis=2, keepdims=True) * _DIMMED).astype(np.uint8)
    return np.where(chosen, image, dark)


def enlarged(grid: NDArray[np.generic], layer: LayerMaps, shape: tuple[int, int]) -> np.ndarray:
    """A map of tokens (rows, columns), every token repeated over its pixels, cut to `shape`."""
    return grid.repeat(layer.pixels, axis=0).repeat(layer.pixels, axis=1)[: shape[0], : shape[1]]


def overview(explanation: Explanation) -> Image.Image:
    """One sheet: the image, and the categories in every layer."""
    image = explanation.image
    panels = [Panel("image", image)]
    for number, layer in enumerate(explanation.layers, 1):
        used = int((layer.counts() > 0).sum())
        caption = f"{number}: {layer.name}\n{used} of {layer.entries} categories"
        panels.append(Panel(caption, categories(layer, (image.shape[0], image.shape[1]))))
    return sheet(f"{explanation.label}: the category of every pixel, layer by layer", panels)


def layer_sheet(explanation: Explanation, number: int) -> Image.Image:
    """One sheet for layer `number`, counted from 1: categories, similarities, and the members of the largest ones."""
    layer = explanation.layers[number - 1]
    image = explanation.image
    shape = (image.shape[0], image.shape[1])
    counts = layer.counts()
    panels = [
        Panel("image", image),
        Panel("categories", categories(layer, shape)),
        Panel("cosine to the own category's entry\nblack 0, white 1", similarities(layer, shape)),
    ]
    colours = palette(layer.entries)
    for entry in layer.largest(_MOST_MEMBERS):
        caption = f"category {entry}: {counts[entry] / layer.category.size:.1%} of the tokens"
        panels.append(Panel(caption, highlighted(image, layer.members(entry), layer), colours[entry]))
    return sheet(f"{explanation.label}, layer {number}: {layer.name}", panels)


def pixel_sheet(explanation: Explanation, x: int, y: int) -> Image.Image:
    """One sheet for the pixel `x`, `y`: what it attends to in every layer, and how near the rest is to its entry."""
    image = explanation.image
    shape = (image.shape[0], image.shape[1])
    panels = [Panel(f"the pixel {x}, {y}", _marked(image, x, y))]
    for number, layer in enumerate(explanation.layers, 1):
        row, column = layer.token_at(x, y)
        entry = int(layer.category[row, column])
        group = layer.group(row, column)
        caption = f"{number}: attends to {int(group.sum())} tokens\nof category {entry} and its neighbours in order"
        panels.append(Panel(caption, _marked(highlighted(image, group, layer), x, y)))
        panels.append(Panel(f"{number}: cosine to entry {entry}\nblack 0, white 1", similarities(layer, shape, entry)))
    return sheet(f"{explanation.label}: the pixel {x}, {y}, layer by layer", panels)


def sheet(title: str, panels: Sequence[Panel]) -> Image.Image:
    """Panels in rows under a title."""
    font = ImageFont.load_default(12)
    columns = min(len(panels), 5)
    height = max(panel.image.shape[0] * _PANEL // max(panel.image.shape[:2]) for panel in panels) or 1
    lines = max(panel.caption.count("\n") + 1 for panel in panels)
    cell = (_PANEL + _MARGIN, height + 16 * lines + _MARGIN)
    rows = -(-len(panels) // columns)
    result = Image.new("RGB", (columns * cell[0] + _MARGIN, rows * cell[1] + 32), "white")
    draw = ImageDraw.Draw(result)
    draw.text((_MARGIN, _MARGIN), title, "black", ImageFont.load_default(15))
    for index, panel in enumerate(panels):
        left, top = _MARGIN + index % columns * cell[0], 32 + index // columns * cell[1]
        result.paste(_fitted(panel.image), (left, top))
        indent = 0
        if panel.colour is not None:
            draw.rectangle((left, top + height + 3, left + 10, top + height + 13), fill=tuple(map(int, panel.colour)))
            indent = 16
        draw.multiline_text((left + indent, top + height), panel.caption, "black", font, spacing=2)
    return result


def _fitted(image: Colours) -> Image.Image:
    """The image with its longer side `_PANEL` pixels long; small ones are enlarged without blur."""
    height, width = image.shape[:2]
    factor = _PANEL / max(height, width)
    size = (max(1, int(width * factor)), max(1, int(height * factor)))
    return Image.fromarray(image).resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)


def _marked(image: Colours, x: int, y: int) -> Colours:
    """The image with a cross around a pixel, which itself stays to be seen."""
    marked = Image.fromarray(image)
    draw = ImageDraw.Draw(marked)
    arm = max(4, max(image.shape[:2]) // 40)
    for line in ((x - arm, y, x - 2, y), (x + 2, y, x + arm, y), (x, y - arm, x, y - 2), (x, y + 2, x, y + arm)):
        draw.line(line, fill=(255, 0, 0))
    return np.asarray(marked)
