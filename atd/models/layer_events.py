"""Tell who listens in this thread that a layer is done: an untiled image is one call of a network and takes minutes.

Hooks would do, but the blockwise route of a CPU calls no modules, and threads share networks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch

Listener = Callable[[float], object]
"""Receives the share of a layer that is done, 1 unless the images of a batch go one by one."""


class _OfThread(threading.local):
    listener: Listener | None = None


_of_thread = _OfThread()


@contextmanager
def listening(listener: Listener | None) -> Generator[None, None, None]:
    """Call `listener` after every layer that this thread computes while the block runs; None: nobody."""
    before = _of_thread.listener
    _of_thread.listener = listener
    try:
        yield
    finally:
        _of_thread.listener = before


def layer_done(share: float = 1.0) -> None:
    """Say that a layer is done. Nothing is left of it in a compiled or exported network."""
    if not torch.compiler.is_compiling() and (listener := _of_thread.listener) is not None:
        listener(share)
