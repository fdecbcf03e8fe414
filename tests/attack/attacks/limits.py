"""Numbers at and beyond what is possible: sizes, factors, tiles. Answered at once, whatever they are."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from restoration_networks import Nearest

import atd
from attacks.independent_readers import read_result
from attacks.runner import Case, Cases, Wrong

IMPOSSIBLE = (float("inf"), float("-inf"), float("nan"), 0, -1, -0.5, 1e308, 1e-308)
NUMBERS = (*IMPOSSIBLE, 1, 2, 3, 0.01, 0.3, 1.7, 5.5, 2**31, 2**63, True, None, "2", 1.5)


def cases(random: Random, folder: Path) -> Cases:
    """Impossible factors first; then random arguments on images of random shapes."""
    for outscale in IMPOSSIBLE:
        run = _run(folder, (8, 8), {"outscale": outscale}, must_refuse=outscale != 1e-308)
        yield Case(f"outscale {outscale}", run, 5)
    while True:
        size = random.choice([(1, 1), (1, 300), (300, 1), (2, 2), (7, 5), (33, 65)])
        arguments: dict[str, object] = {
            "tile": random.choice([*NUMBERS, "auto", 16, 64]),
            "overlap": random.choice([*NUMBERS, 0, 4, 32, 1000]),
            "batch_size": random.choice([*NUMBERS, 4]),
            "stream": random.choice([True, False, None]),
        }
        if random.random() < 0.5:
            arguments["outscale"] = random.choice(NUMBERS)
        chosen = random.sample(sorted(arguments), random.randint(1, len(arguments)))
        yield Case(f"{size}: {chosen}", _run(folder, size, {name: arguments[name] for name in chosen}), 15)


def _run(folder: Path, size: tuple[int, int], arguments: dict[str, object], *, must_refuse: bool = False):
    def run() -> None:
        for path in folder.iterdir():
            path.unlink()
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "in.png")
        atd.restore_file(Nearest(scale=2), folder / "in.png", folder / "out.png", **arguments)
        if must_refuse:
            raise Wrong(f"takes {arguments}")
        result = read_result(folder / "out.png")
        factor = arguments.get("outscale")
        expected = tuple(max(round(side * (2 if factor is None else float(factor))), 1) for side in size)
        if result.shape[:2] != expected:
            raise Wrong(f"{arguments} give {result.shape[:2]}, expected {expected}")
        if factor is None and not np.array_equal(result[::2, ::2, :3], pixels / 255):
            raise Wrong(f"{arguments} give other pixels")

    return run
