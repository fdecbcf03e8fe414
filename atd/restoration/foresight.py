"""How long a file and a folder will take, told where that is long: nobody watches the progress bar of a folder run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from atd.images import ImageHeader
from atd.restoration.progress import Callback, TileProgress

logger = logging.getLogger("atd.restoration")

LONG = 600.0
"""Seconds left of a file from which on it is told."""
LEARNING = 10.0
"""Seconds of tiles before they say what the others will take: the first ones compile kernels and fill caches."""
LONG_FOLDER = 60.0
"""Seconds left of all files from which on they are told."""
MOST_HEADERS = 500
"""Files of which the size is looked at for an estimate: those between them are taken to be like them."""
MOST_NAMED = 3
"""Files that are named for taking long, at most."""


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
                in_words(state.remaining),
                state.done,
                state.total,
            )
        if callback is not None:
            callback(state)

    return count


class FileAhead(NamedTuple):
    """A file that is still to be restored."""

    path: Path
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Of the whole image."""
        return self.height * self.width


class FolderForesight:
    """Tells by the log how long the files of a run will take: as soon as that can be known, and rarely after that.

    What a pixel takes is learned from the files after the first one. It is told again when half of the time that was
    told has gone by.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._restored = 0
        self._pixels = 0
        self._start = self._next = 0.0

    def restored(self, header: ImageHeader, left: Callable[[], Sequence[Callable[[], FileAhead]]]) -> None:
        """A file of this header is restored.

        Args:
            left: gives, for each of the other files, how to look at it.
        """
        now = self._clock()
        self._restored += 1
        if self._restored == 1:
            self._start, self._next = now, now + LEARNING
            return
        self._pixels += header.shape[0] * header.shape[1]
        if now < self._next:
            return
        seconds = (now - self._start) / self._pixels
        files = left()
        step = max(-(-len(files) // MOST_HEADERS), 1)
        ahead = [file for file in (look() for look in files[::step]) if file.pixels]
        remaining = seconds * sum(file.pixels for file in ahead) * step
        self._next = now + max(remaining / 2, LEARNING)
        if remaining < LONG_FOLDER:
            return
        text = f"{len(ahead) * step} more files will take about {in_words(remaining)}: {self._restored} are restored"
        if step > 1:
            text = f"about {text}"
        for file in sorted(ahead, key=lambda file: -file.pixels)[:MOST_NAMED]:
            if seconds * file.pixels >= LONG:
                alone = in_words(seconds * file.pixels)
                text += f"; {file.path} ({file.width}x{file.height} pixels) alone about {alone}"
        logger.warning("%s", text)


def in_words(seconds: float) -> str:
    """A time in the largest unit of which it has two."""
    for length, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
