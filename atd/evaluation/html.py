"""Pieces of a self-contained HTML page: no scripts, no requests, images inside as data."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1a1a1a;
  background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem } h3 { font-size: 1rem; margin: 1.5rem 0 .3rem }
table { border-collapse: collapse; margin: 1rem 0 } th { background: #f4f4f4 }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: left; font-variant-numeric: tabular-nums }
.panels { display: flex; flex-wrap: wrap; gap: .8rem } figure { margin: 0 }
figcaption { font-size: .85rem; color: #444 } details { margin: 1rem 0 }
img { display: block; height: 192px; image-rendering: pixelated; background: #eee }
"""


def document(title: str, body: Sequence[str]) -> str:
    """The whole page around `body`, a sequence of HTML fragments."""
    return "\n".join(
        (
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>',
            f"<body><h1>{escape(title)}</h1>",
            *body,
            "</body></html>\n",
        )
    )


def heading(text: str, level: int) -> str:
    """A heading of `level` 2 or 3; the title is the only one of level 1."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """Plain text, escaped."""
    return f"<p>{escape(text)}</p>"


def bullet_list(items: Sequence[str]) -> str:
    """A list of plain texts; nothing where there are none."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>" if items else ""


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header."""
    lines: list[str] = []
    for index, row in enumerate(rows):
        tag = "td" if index else "th"
        lines.append(f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def folded(summary: str, content: str) -> str:
    """`content`, an HTML fragment, folded away under `summary`."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def figure_row(panels: Sequence[tuple[str, np.ndarray]]) -> str:
    """Images beside each other, each uint8 (H, W) or (H, W, 3) with its caption."""
    parts: list[str] = []
    for caption, image in panels:
        text = escape(caption)
        parts.append(f'<figure><img alt="{text}" src="{_data_uri(image)}"><figcaption>{text}</figcaption></figure>')
    return f'<div class="panels">{"".join(parts)}</div>'


def _data_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
