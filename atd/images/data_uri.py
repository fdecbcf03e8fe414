"""Images inside of pages."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def data_uri(pixels: np.ndarray) -> str:
    """uint8 (h, w) or (h, w, 3) as a PNG in an address, for pages that make no request."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
