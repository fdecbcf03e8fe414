"""Processes that are interrupted, ended or killed at any moment: never half a result, and the work can go on."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from restoration_networks import Learned

import atd
from attacks.processes import run_in_process
from attacks.runner import Case, Cases, Wrong
from attacks.tiny_network import check_one_of, tiny_network

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
SIZE = (240, 180)
OLD, NEW = {"seed": 0, "category_size": 16}, {"seed": 1, "category_size": 24}


def cases(random: Random, folder: Path) -> Cases:
    """Restorations in memory and in strips, and networks that are saved; each stopped at a moment of its time."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3)).astype(np.uint8)
    expected = atd.restore(Learned(), pixels, tile=48, overlap=16)
    network_seconds: list[float] = []
    image_seconds: dict[tuple[bool, str], float] = {}
    while True:
        number = random.choice(SIGNALS)
        part = random.random() * 1.05
        if random.random() < 0.3:

            def saved(part=part, number=number) -> None:
                if not network_seconds:
                    _saved_whole(folder)
                    network_seconds.append(run_in_process(save, folder / "net").seconds)
                _saved_whole(folder)
                run_in_process(save, folder / "net", signal_number=number, after=part * network_seconds[0])
                check_one_of(folder / "net", [_network(OLD), _network(NEW)])

            yield Case(f"saving a network, {number.name} after {part:.0%}", saved, 60)
            continue
        stream, ending = random.choice([(True, ".png"), (True, ".tif"), (False, ".png"), (False, ".webp")])

        def restored(part=part, number=number, stream=stream, ending=ending) -> None:
            if (stream, ending) not in image_seconds:
                source, target = _prepared(folder, pixels, ending)
                image_seconds[stream, ending] = run_in_process(restore, source, target, stream).seconds
                _check(target, expected)
            source, target = _prepared(folder, pixels, ending)
            after = part * image_seconds[stream, ending]
            run_in_process(restore, source, target, stream, signal_number=number, after=after)
            _check_left(folder, source, target, clean=number == signal.SIGINT)
            if target.exists():
                _check(target, expected)
            ended = run_in_process(restore, source, target, stream)
            if ended.status:
                raise Wrong(f"does not go on: status {ended.status}")
            _check(target, expected)

        where = "in strips" if stream else "in memory"
        yield Case(f"restoring {ending} {where}, {number.name} after {part:.0%}", restored, 60)


def restore(source: Path, target: Path, stream: bool) -> None:
    """The work of a process that restores."""
    atd.restore_file(Learned(), source, target, tile=48, overlap=16, stream=stream, resume=stream)


def save(place: Path) -> None:
    """The work of a process that saves a network where another one is."""
    _network(NEW).save_pretrained(place)


def _network(settings: dict[str, int]) -> atd.ATD:
    return tiny_network(**settings)


def _saved_whole(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _network(OLD).save_pretrained(folder / "net")


def _prepared(folder: Path, pixels: np.ndarray, ending: str) -> tuple[Path, Path]:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    Image.fromarray(pixels).save(folder / "in.png")
    return folder / "in.png", folder / f"out{ending}"


def _check(target: Path, expected: np.ndarray) -> None:
    with Image.open(target) as image:
        rows = (np.asarray(image) != expected).any(axis=(1, 2)).sum()
    if rows:
        raise Wrong(f"{rows} of {len(expected)} rows are wrong")


def _check_left(folder: Path, source: Path, target: Path, *, clean: bool) -> None:
    """Besides rows to go on with, only a signal that gives no time to tidy up may leave a temporary file."""
    known = {source.name, target.name, f"{target.name}.part", f"{target.name}.part.json"}
    left = [path.name for path in folder.iterdir() if path.name not in known]
    if left and (clean or not all(".tmp" in name for name in left)):
        raise Wrong(f"leaves {', '.join(left)} behind")
