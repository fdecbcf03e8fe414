"""Many files in one process: what it holds must not grow with their number."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path
from random import Random
from typing import NamedTuple

from restoration_networks import Nearest

import atd
from attacks import byte_mutators
from attacks.image_seeds import seeds
from attacks.runner import REFUSALS


class Held(NamedTuple):
    """What the process holds."""

    descriptors: int
    bytes: int
    """Its resident set, after unused memory was given back."""


def held() -> Held:
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(len(os.listdir("/proc/self/fd")), pages * os.sysconf("SC_PAGE_SIZE"))


def restore_many(folder: Path, good: int, bad: int, *, warm_up: int = 100) -> tuple[Held, Held]:
    """Restore intact and damaged images of all formats; what is held after `warm_up` files, and at the end."""
    random = Random(0)
    identity = Nearest(scale=1)
    everything = seeds()
    kinds = [True] * good + [False] * bad
    random.shuffle(kinds)
    # The warm-up sees every format, in memory and in strips, intact and cut.
    kinds = [True, False] * (warm_up // 2) + kinds
    start = held()
    for number, intact in enumerate(kinds):
        if number == warm_up:
            start = held()
        seed = everything[number // 2 % len(everything)] if number < warm_up else random.choice(everything)
        data = seed.data if intact else byte_mutators.cut(seed.data, random)
        source = folder / f"in{seed.ending}"
        source.write_bytes(data)
        identity.seen.clear()
        try:
            atd.restore_file(identity, source, folder / "out.tif", stream=number % 4 < 2, tile=32, overlap=4)
        except REFUSALS:
            continue
    return start, held()
