"""How far a job is: one convention, over all images, passes and tiles, for callbacks and for the bar on stderr."""

from __future__ import annotations

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


class TileCounter:
    """Counts the tiles of a job and tells the callback.

    A job is a chain of stages, of which one is at work: `plan` says how many tiles are left of it, `later` how many
    the stages after it will have.
    """

    def __init__(self, callback: Callback | None = None) -> None:
        self.callback = callback
        self.done = self.left = self.later = 0
        self.start = time.monotonic()

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

    False: none; True: one that draws a bar on stderr, named by `description`; a callable: itself.
    """
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress:
        yield None
        return
    from huggingface_hub.utils import tqdm

    with tqdm(desc=description, unit="tile", leave=False) as bar:

        def draw(state: TileProgress) -> None:
            bar.total = state.total
            bar.update(state.done - bar.n)

        yield draw
