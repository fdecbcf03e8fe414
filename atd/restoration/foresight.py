"""How long a file will take, told once where that is long: nobody watches the progress bar of a folder run."""

from __future__ import annotations

import logging
from pathlib import Path

from atd.images import ImageHeader
from atd.restoration.progress import Callback, TileProgress

logger = logging.getLogger("atd.restoration")

LONG = 600.0
"""Seconds left of a file from which on it is told."""
LEARNING = 10.0
"""Seconds of tiles before they say what the others will take: the first ones compile kernels and fill caches."""


def telling_long_work(source: Path, header: ImageHeader, callback: Callback | None) -> Callback:
    """A callback that logs once how long `source` will take, if that is long, and then calls `callback`."""
    height, width, _ = header.shape
    told = False

    def count(state: TileProgress) -> None:
        nonlocal told
        if not told and state.elapsed >= LEARNING and state.remaining >= LONG:
            told = True
            logger.warning(
                "%s (%dx%d pixels) will take about %s more: %d of %d tiles are done",
                source,
                width,
                height,
                _in_words(state.remaining),
                state.done,
                state.total,
            )
        if callback is not None:
            callback(state)

    return count


def _in_words(seconds: float) -> str:
    for length, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
