"""Streamed runs that are stopped, damaged, joined by a second run, and resumed: the right rows, or a refusal."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from restoration_networks import Learned

import atd
from attacks import byte_mutators
from attacks.runner import REFUSALS, Case, Cases, Wrong

TILE, OVERLAP = 48, 16


class Stopped(Exception):
    """Raised by the progress callback."""


def cases(random: Random, folder: Path) -> Cases:
    """Stops at random tiles; what lies there is left, damaged, or met by another run."""
    network = Learned()
    pixels = np.random.default_rng(0).integers(0, 256, (150, 110, 3)).astype(np.uint8)
    expected = atd.restore(network, pixels, tile=TILE, overlap=OVERLAP)
    damages = [byte_mutators.cut, byte_mutators.zero_tail, byte_mutators.flip_bit, byte_mutators.remove, None]
    while True:
        at, damage, ending = random.randint(1, 14), random.choice(damages), random.choice([".png", ".tif"])
        record = random.random() < 0.2
        name = damage.__name__ if damage else "as it was"

        def resumed(at=at, damage=damage, ending=ending, record=record) -> None:
            source, target = _prepared(folder, pixels, ending)
            _stop(network, source, target, at)
            part = target.with_name(f"{target.name}.part{'.json' if record else ''}")
            if damage and part.exists() and part.stat().st_size:
                part.write_bytes(damage(part.read_bytes(), random))
            try:
                atd.restore_file(network, source, target, tile=TILE, overlap=OVERLAP, stream=True, resume=True)
            finally:
                _check(target, expected, "the resumed run")

        yield Case(f"stopped after {at} tiles, {'record' if record else 'rows'} {name}", resumed)

        def joined(at=at, ending=ending) -> None:
            source, target = _prepared(folder, pixels, ending)
            refusals: list[BaseException] = []

            def join(state: atd.TileProgress) -> None:
                if state.done == at and not refusals:
                    refusals.append(Stopped())  # not from within the second run
                    try:
                        _stop(network, source, target, max(at // 2, 1))
                    except REFUSALS as refusal:
                        refusals.append(refusal)

            try:
                atd.restore_file(network, source, target, tile=TILE, overlap=OVERLAP, stream=True, progress=join)
            finally:
                _check(target, expected, "the first of two runs")

        yield Case(f"a second run after {at} tiles", joined)


def _prepared(folder: Path, pixels: np.ndarray, ending: str) -> tuple[Path, Path]:
    for path in folder.iterdir():
        path.unlink()
    source = folder / "in.png"
    Image.fromarray(pixels).save(source)
    return source, folder / f"out{ending}"


def _stop(network: Learned, source: Path, target: Path, at: int) -> None:
    """A streaming run that ends after `at` tiles."""

    def stop(state: atd.TileProgress) -> None:
        if state.done == at:
            raise Stopped

    try:
        atd.restore_file(network, source, target, tile=TILE, overlap=OVERLAP, stream=True, progress=stop)
    except Stopped:
        return


def _check(target: Path, expected: np.ndarray, whose: str) -> None:
    if target.exists():
        with Image.open(target) as image:
            rows = (np.asarray(image) != expected).any(axis=(1, 2)).sum()
        if rows:
            raise Wrong(f"{rows} of {len(expected)} rows of {whose} are wrong")
