"""How far a job is: one convention, over all images, passes and tiles, for callbacks and for the bar on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple


class TileProgress(NamedTuple):
    """What a progress callback receives after every batch of tiles. An exception raised in it cancels the run.

    A job is all that one call of `restore` or `restore_file` computes: every image of a batch, and every pass of the
    network where one is not enough for `outscale`.
    """

    done: int
    """Tiles that are finished."""
    total: int
    """Tiles of the whole job; it changes only when memory runs out and smaller tiles are needed."""
    elapsed: float
    """Seconds since the job began."""
    remaining: float
    """Estimated seconds to the last tile, 0 when it is finished."""


Callback = Callable[[TileProgress], object]


class ProgressBar:
    """A callback that draws a bar on stderr, and also knows how far the tile is that is being computed.

    Args:
        description: stands before the bar.
        interval: seconds between two drawings, at least.
    """

    def __init__(self, description: str = "tiles", interval: float = 0.1) -> None:
        from huggingface_hub.utils import tqdm

        self._description = description
        layout = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
        # miniters: by time alone, since steps are of any size.
        self._bar = tqdm(
            desc=f"{description}:", total=1, leave=False, bar_format=layout, mininterval=interval, miniters=0
        )
        self._tiles = 1

    def __call__(self, state: TileProgress) -> None:
        """Tiles are done."""
        self._tiles = state.total
        self._draw(state.done, f"tile {state.done}/{state.total}")

    def inside(self, done: int, total: int, tiles: int, layers: float, most: int) -> None:
        """Layers of a tile are done.

        Args:
            done: finished tiles. total: of the job.
            tiles: that are computed at once.
            layers: that are done of `most`; what a network does over again is not counted.
        """
        self._tiles = total
        layers = min(layers, most)
        layer = f"layer {int(layers)}/{most}"
        where = layer if total == 1 else f"tile {done + 1}/{total}, {layer}"
        self._draw(done + tiles * layers / most, where)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def _draw(self, done: float, where: str) -> None:
        self._bar.total = self._tiles
        self._bar.set_description_str(f"{self._description}: {where}", refresh=False)
        self._bar.update(done - self._bar.n)


class TileCounter:
    """Counts the tiles of a job and tells the callback.

    A job is a chain of stages, of which one is at work: `plan` says how many tiles are left of it, `later` how many
    the stages after it will have.
    """

    def __init__(self, callback: Callback | None = None) -> None:
        self.callback = callback
        self.done = self.left = self.later = 0
        self.start = time.monotonic()

    def listener(self, tiles: int, layers: int) -> Callable[[float], None] | None:
        """What to call with each layer that is done of `tiles` tiles, which go through `layers`; None: nothing."""
        bar = self.callback
        if not isinstance(bar, ProgressBar) or layers == 0:
            return None
        done = 0.0

        def count(share: float) -> None:
            nonlocal done
            done += share
            bar.inside(self.done, self.done + self.left + self.later, tiles, done, layers)

        return count

    def plan(self, tiles: int) -> None:
        """Say how many tiles are left of this stage: at its begin, and when memory asks for another plan."""
        self.left = tiles

    def finish(self, tiles: int) -> None:
        """Count tiles that are done."""
        self.done += tiles
        self.left = max(self.left - tiles, 0)
        if self.callback is not None:
            elapsed, left = time.monotonic() - self.start, self.left + self.later
            self.callback(TileProgress(self.done, self.done + left, elapsed, elapsed / self.done * left))


@contextmanager
def progress_callback(progress: bool | Callback, description: str = "tiles") -> Generator[Callback | None, None, None]:
    """From the argument `progress` of the public functions to a callback.

    False: none; True: one that draws a bar on stderr where that is a terminal, named by `description`; a callable:
    itself.
    """
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress or not sys.stderr.isatty():
        yield None
        return
    bar = ProgressBar(description)
    try:
        yield bar
    finally:
        bar.close()
