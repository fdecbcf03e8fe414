"""Pieces of a self-contained HTML page: no requests; style, script and images are inside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

import numpy as np

from atd.images.data_uri import data_uri

Panels = Sequence[tuple[str, np.ndarray]]
"""Captions and images, uint8 (H, W) or (H, W, 3)."""


def document(title: str, body: Sequence[str]) -> str:
    """The whole page around `body`, a sequence of HTML fragments."""
    style, script = (_part(name) for name in ("page.css", "page.js"))
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}</style></head>",
            f"<body><h1>{escape(title)}</h1>",
            *body,
            f"<script>{script}</script>",
            "</body></html>\n",
        )
    )


def _part(name: str) -> str:
    return resources.files("atd.evaluation").joinpath(name).read_text(encoding="utf-8")


def heading(text: str, level: int) -> str:
    """A heading of `level` 2 or 3; the title is the only one of level 1."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """Plain text, escaped."""
    return f"<p>{escape(text)}</p>"


def bullet_list(items: Sequence[str]) -> str:
    """A list of plain texts; nothing where there are none."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>" if items else ""


def table(rows: Sequence[Sequence[str]], *, sortable: bool = False) -> str:
    """The first row is the header; a click on it sorts a `sortable` table."""
    head, *body = rows
    cells = [f"<button>{escape(cell)}</button>" if sortable else escape(cell) for cell in head]
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in cells)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body]
    kind = ' class="sortable"' if sortable else ""
    return f'<div class="wide"><table{kind}><tbody>{"".join(lines)}</tbody></table></div>'


def folded(summary: str, content: str) -> str:
    """`content`, an HTML fragment, folded away under `summary`."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def figure_row(panels: Panels) -> str:
    """Images beside each other, with their captions."""
    figures = (f"<figure>{_img(panel)}<figcaption>{escape(panel[0])}</figcaption></figure>" for panel in panels)
    return f'<div class="panels">{"".join(figures)}</div>'


def slider(left: tuple[str, np.ndarray], right: tuple[str, np.ndarray]) -> str:
    """Two images of one size on top of each other, with a line between them that can be moved."""
    caption = escape(f"left {left[0]}, right {right[0]}")
    return (
        f'<figure class="slider"><div class="pair">{_img(left)}{_img(right)}</div>'
        f'<input type="range" value="50" aria-label="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


def _img(panel: tuple[str, np.ndarray]) -> str:
    caption, image = panel
    return f'<img alt="{escape(caption)}" draggable="false" src="{data_uri(image)}">'
