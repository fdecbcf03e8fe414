"""Disks that are full at any byte: the old file or the new one, whole, and nothing beside it."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from restoration_networks import Nearest

import atd
from attacks.independent_readers import read_result
from attacks.runner import REFUSALS, Case, Cases, Wrong
from attacks.tiny_network import check_one_of, tiny_network

Room = Callable[[], contextlib.AbstractContextManager[None]]
"""Leaves little room for as long as it is entered."""


def cases(random: Random, folder: Path) -> Cases:
    """Files that may not become longer than so many bytes; and, where it may be mounted, a disk of 200 kB."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 110, 3)).astype(np.uint8)
    with _small_disk(folder / "disk") as disk:
        while True:
            full = random.randrange(0, 130_000)
            stream, ending = random.random() < 0.5, random.choice([".png", ".tif", ".jpg", ".webp", ".bmp"])
            stream = stream and ending in (".png", ".tif")

            image = partial(_image, pixels, stream, ending)
            name = f"{ending}, {'in strips' if stream else 'in memory'}"
            yield Case(f"{name}, files up to {full} bytes", partial(image, folder / "work", partial(_longest, full)))
            full = random.randrange(0, 260_000)
            yield Case(f"weights, files up to {full} bytes", partial(_weights, folder / "net", partial(_longest, full)))
            if disk is not None:
                taken = random.randrange(1_000, 190_000)
                yield Case(f"{name}, {taken} bytes of 200 kB taken", partial(image, disk, partial(_taken, disk, taken)))


def _image(pixels: np.ndarray, stream: bool, ending: str, place: Path, room: Room) -> None:
    """Restore into a place with little room in which an older result lies."""
    place.mkdir(exist_ok=True)
    for path in place.iterdir():
        path.unlink()
    source, target = place.parent / "in.png", place / f"out{ending}"
    Image.fromarray(pixels).save(source)
    target.write_bytes(b"old")
    try:
        with room():
            atd.restore_file(Nearest(scale=2), source, target, stream=stream, tile=64)
    except REFUSALS as refusal:
        if target.read_bytes() != b"old":
            raise Wrong(f"an old result is lost: {refusal}") from refusal
        raise
    finally:
        left = {path.name for path in place.iterdir()} - {
            target.name,
            f"{target.name}.part",
            f"{target.name}.part.json",
        }
        if left:
            raise Wrong(f"leaves {', '.join(sorted(left))} behind")
    with Image.open(target) as image:
        image.load()
    if ending in (".png", ".tif") and not np.array_equal(read_result(target)[::2, ::2, :3], pixels / 255):
        raise Wrong("gives other pixels")


def _weights(place: Path, room: Room) -> None:
    """Save a network over another: one of them is there afterwards, with its own settings."""
    shutil.rmtree(place, ignore_errors=True)
    old, new = tiny_network(0, category_size=16), tiny_network(1, category_size=24)
    old.save_pretrained(place)
    try:
        with room():
            new.save_pretrained(place)
    finally:
        check_one_of(place, [old, new])
        left = [path.name for path in place.parent.iterdir() if path.name not in (place.name, "work", "disk", "in.png")]
        if left:
            raise Wrong(f"leaves {', '.join(left)} behind")


@contextlib.contextmanager
def _longest(size: int) -> Generator[None, None, None]:
    """No file of this process may become longer: what follows is an error as of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextlib.contextmanager
def _taken(disk: Path, size: int) -> Generator[None, None, None]:
    """So many bytes of a disk are in use."""
    (disk / "taken").write_bytes(bytes(size))
    try:
        yield
    finally:
        (disk / "taken").unlink()


@contextlib.contextmanager
def _small_disk(place: Path) -> Generator[Path | None, None, None]:
    """A file system of 200 kB in memory; None where this user may not mount one."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield place if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
