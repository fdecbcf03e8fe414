"""The bar that commands over many images draw."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def image_bar() -> Generator[Callable[[int, int], None], None, None]:
    """What to call with the images done and the images in all; draws a bar where stderr is a terminal."""
    from huggingface_hub.utils import tqdm

    with tqdm(unit="image", disable=not sys.stderr.isatty()) as bar:

        def progress(count: int, total: int) -> None:
            bar.total = total
            bar.update(count - bar.n)

        yield progress
