"""One HTML page on which the layers can be leafed through and pixels asked: a single file that makes no request."""

from __future__ import annotations

import json
from html import escape
from importlib import resources

import numpy as np

from atd.explanation.drawing import palette
from atd.explanation.maps import Explanation, LayerMaps
from atd.images.data_uri import data_uri


def page(explanation: Explanation) -> str:
    """The page; `page.html` beside this module says how it works."""
    entries = max(layer.entries for layer in explanation.layers)
    data = {
        "image": data_uri(explanation.image),
        "width": explanation.image.shape[1],
        "height": explanation.image.shape[0],
        "palette": palette(entries).tolist(),
        "layers": [_layer(layer) for layer in explanation.layers],
    }
    template = resources.files("atd.explanation").joinpath("page.html").read_text(encoding="utf-8")
    # In a script, only the end of it would be taken for HTML.
    text = json.dumps(data).replace("</", "<\\/")
    return template.replace("{{label}}", escape(explanation.label)).replace("{{data}}", text)


def _layer(layer: LayerMaps) -> dict[str, object]:
    rows, columns = layer.grid_category.shape
    return {
        "name": layer.name,
        "pixels": layer.pixels,
        "rows": rows,
        "columns": columns,
        "group": layer.group_size,
        "entries": layer.entries,
        "map": data_uri(_packed(layer)),
    }


def _packed(layer: LayerMaps) -> np.ndarray:
    """The whole grid as an RGB image: low and high byte of the category, and its cosine in 1/255."""
    category = layer.grid_category
    similarity = layer.grid_similarity().clip(0, 1)
    packed = np.stack([category & 255, category >> 8, (similarity * 255).round()], axis=2)
    return packed.astype(np.uint8)
