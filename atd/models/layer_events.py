"""Tell who listens in this thread what layers do: that one is done, since an untiled image is one call of a network and
takes minutes, and what it looked up in its dictionary.

Hooks would do, but the blockwise route of a CPU calls no modules, and threads share networks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn


class LookupEvent(NamedTuple):
    """What one layer looked up for some images of the batch. The tensors are valid during the call only."""

    layer: nn.Module
    grid: tuple[int, int]
    """Height and width of the tokens."""
    query: Tensor
    """(b, n, r), not normalised."""
    key: Tensor
    """(b, M, r), not normalised."""
    category: Tensor
    """(b, n) int64: the dictionary entry of every token, as the rest of the layer uses it."""


Recorder = Callable[[LookupEvent], object]
Listener = Callable[[float], object]
"""Receives the share of a layer that is done, 1 unless the images of a batch go one by one."""


class _OfThread(threading.local):
    listener: Listener | None = None
    recorder: Recorder | None = None


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


@contextmanager
def recording(recorder: Recorder) -> Generator[None, None, None]:
    """Call `recorder` with what every layer looks up that this thread computes while the block runs."""
    before = _of_thread.recorder
    _of_thread.recorder = recorder
    try:
        yield
    finally:
        _of_thread.recorder = before


def looked_up(layer: nn.Module, grid: tuple[int, int], query: Tensor, key: Tensor, category: Tensor) -> None:
    """Say what a layer looked up; see `LookupEvent`. Nothing is left of it in a compiled or exported network."""
    if not torch.compiler.is_compiling() and (recorder := _of_thread.recorder) is not None:
        recorder(LookupEvent(layer, grid, query, key, category))
