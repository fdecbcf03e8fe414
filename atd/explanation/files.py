"""An explanation as a folder of images, arrays and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atd.explanation import drawing
from atd.explanation.maps import Explanation
from atd.explanation.page import page
from atd.system import atomic_write


def write_explanation(explanation: Explanation, folder: Path, at: Sequence[tuple[int, int]] = ()) -> None:
    """Write all that `atd explain` writes; files of these names are replaced.

    Args:
        explanation: what is written.
        folder: made if it is not there.
        at: pixels x, y of the image, each of which gets a sheet of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sheets = {"layers": drawing.overview(explanation)}
    digits = len(str(len(explanation.layers)))
    for number in range(1, len(explanation.layers) + 1):
        sheets[f"layer_{number:0{digits}}"] = drawing.layer_sheet(explanation, number)
    for x, y in at:
        sheets[f"at_{x}_{y}"] = drawing.pixel_sheet(explanation, x, y)
    for name, image in sheets.items():
        with atomic_write(folder / f"{name}.png") as path:
            image.save(path, "PNG")
    with atomic_write(folder / "maps.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, **explanation.arrays())  # pyright: ignore[reportArgumentType]  (any names of arrays)
    with atomic_write(folder / "index.html") as path:
        path.write_text(page(explanation), encoding="utf-8")
