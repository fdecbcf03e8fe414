"""From the argument `progress` of the public functions to a callback per tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class TileProgress(NamedTuple):
    """What a progress callback receives after every batch of tiles. An exception raised in it cancels the run."""

    done: int
    total: int
    elapsed: float
    """Seconds since the first tile began."""
    remaining: float
    """Estimated seconds to the last tile."""


Callback = Callable[[TileProgress], object]


@contextmanager
def tile_callback(progress: bool | Callback, description: str = "tiles") -> Iterator[Callback | None]:
    """False: no callback; True: one that draws a bar on stderr; a callable: itself."""
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
