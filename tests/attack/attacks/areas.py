"""The areas under attack, and how much of the time each gets."""

from __future__ import annotations

from typing import NamedTuple

from attacks import bombs, disks, hub_answers, images, interruptions, limits, names, signals, weights
from attacks.runner import Area


class Attacked(NamedTuple):
    """An area, its part of the time, and how many of its cases are tried on every commit."""

    cases: Area
    share: float
    quick: int


AREAS = {
    "images": Attacked(images.cases, share=5, quick=1000),
    "weights": Attacked(weights.cases, share=2, quick=400),
    "interruptions": Attacked(interruptions.cases, share=1, quick=60),
    "signals": Attacked(signals.cases, share=1, quick=8),
    "disks": Attacked(disks.cases, share=1, quick=60),
    "hub": Attacked(hub_answers.cases, share=1, quick=12),
    "names": Attacked(names.cases, share=0.5, quick=5),
    "limits": Attacked(limits.cases, share=0.5, quick=120),
    "bombs": Attacked(bombs.cases, share=0.5, quick=5),
}
