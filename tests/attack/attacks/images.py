"""Image files of every format, damaged in every way: restored rightly, or refused in one sentence and nothing left.

The network is the identity, so that the result must be what an independent reader makes of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from restoration_networks import Nearest

import atd
from attacks import byte_mutators, structure
from attacks.image_seeds import Seed, seeds
from attacks.independent_readers import difference, is_large, large_difference, read_result, readings
from attacks.runner import REFUSALS, Case, Cases, Wrong

EXACT = 1e-6
"""Differences of equal samples: those of float64."""
ANOTHER_JPEG_DECODER = 2 / 255 + EXACT
"""Levels by which decoders of JPEG and WebP differ, each right by its specification."""


def cases(random: Random, folder: Path) -> Cases:
    """All seeds intact, in memory and in strips; then every kind of damage, without end."""
    identity = Nearest(scale=1)
    everything = seeds()
    for seed in everything:
        for stream in (False, True):
            yield _case(identity, seed, seed.data, "intact", folder, stream=stream, whole=seed)
    while True:
        seed = random.choice(everything)
        how, data, whole = _damaged(seed, random, everything)
        if data:
            yield _case(identity, seed, data, how, folder, stream=random.random() < 0.5, whole=whole)


def _damaged(seed: Seed, random: Random, everything: tuple[Seed, ...]) -> tuple[str, bytes, Seed | None]:
    """The kind of damage, the damaged file, and the seed itself where its pixels are the only right answer."""
    losses: list[Callable[[bytes, Random], bytes]] = [byte_mutators.cut]
    if seed.ending in (".png", ".jpg"):
        # These formats say where they end, or check what they hold; in others zeros may be pixels.
        losses.append(byte_mutators.zero_tail)
    kind = random.random()
    if kind < 0.4:
        return "numbers that lie", structure.lie(seed.data, random), None
    if kind < 0.55:
        return "pieces rearranged", structure.rearrange(seed.data, random), None
    if kind < 0.8:
        lose = random.choice(losses)
        return lose.__name__, lose(seed.data, random), seed
    if kind < 0.85:
        return "splice", byte_mutators.splice(seed.data, random.choice(everything).data, random), None
    mutate = random.choice(byte_mutators.ANYWHERE)
    return mutate.__name__, mutate(seed.data, random), None


def _case(
    identity: Nearest, seed: Seed, data: bytes, how: str, folder: Path, *, stream: bool, whole: Seed | None
) -> Case:
    def run() -> None:
        source, target = folder / f"in{seed.ending}", folder / "out.tif"
        for path in folder.iterdir():
            path.unlink()
        source.write_bytes(data)
        try:
            restore(identity, source, target, stream)
        finally:
            left = sorted(path.name for path in folder.iterdir() if path not in (source, target))
            if left:
                raise Wrong(f"leaves {', '.join(left)} behind")
        judge(source, target, seed, whole, folder)

    return Case(f"{seed.name}, {how}, {'in strips' if stream else 'in memory'}", run)


def restore(identity: Nearest, source: Path, target: Path, stream: bool) -> None:
    """One file through the library; a refusal must be one sentence that names a file, and give no result."""
    try:
        atd.restore_file(identity, source, target, stream=stream, tile=32, overlap=4)
    except REFUSALS as refusal:
        message = str(refusal)
        if "\n" in message.strip() or not any(path.name in message for path in (source, target)):
            raise Wrong(f"refuses without naming the file in one line: {message!r}") from refusal
        if target.exists():
            raise Wrong(f"refuses, and gives a result: {message}") from refusal
        raise


def judge(source: Path, target: Path, seed: Seed, whole: Seed | None, folder: Path) -> None:
    """Raise `Wrong` unless the result is what some independent reader sees in the file, or in `whole` if given.

    The pixels of the intact seed are never wrong: damage that leaves them may keep every other reader from them.
    """
    tolerance = EXACT if seed.is_exact else ANOTHER_JPEG_DECODER
    if is_large(target):
        if large_difference(source, target) > tolerance:
            raise Wrong("a large result that is not what Pillow sees")
        return
    ours = read_result(target)
    intact = folder / f"intact{seed.ending}"
    intact.write_bytes(seed.data)
    best, closest = "no other reader reads it", np.inf
    for name, theirs in readings(source if whole is None else intact):
        apart = difference(ours, theirs)
        if apart is None:
            best = f"{name} sees another size" if closest == np.inf else best
        elif apart.max() <= tolerance:
            return
        elif apart.max() < closest:
            closest = apart.max()
            best = f"{closest * 255:.3g} of 255 from what {name} sees"
    seen_in_seed = (difference(ours, theirs) for _, theirs in readings(intact))
    if any(apart is not None and apart.max() <= tolerance for apart in seen_in_seed):
        return
    lost = " in the file before the loss" if whole is not None else ""
    raise Wrong(f"a result that is wrong: {best}{lost}")
