"""What is made of a module's weights alone, kept from one image to the next."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Value = TypeVar("Value")


class WeightCache(Generic[Value]):
    """One value a module, made again when one of the weights that it is made of has changed.

    A change is another tensor, another place in memory, or an operation in place that autograd counts
    (``load_state_dict``, an optimizer's step, ``weight.mul_(2)`` without gradients). What autograd does not count, as
    ``weight.data.mul_(2)``, stays unseen until :meth:`forget` is called, which layers do when they are moved, cast or
    switched between training and evaluation. Modules do not hold the values: copies and pickles of them have none.
    """

    def __init__(self) -> None:
        self._entries: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], Value]] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()

    def get(self, module: nn.Module, weights: Iterable[Tensor], make: Callable[[], Value]) -> Value:
        """The value of ``module``, from ``make()`` where ``weights`` are not those that it was made of."""
        state = tuple(map(tensor_state, weights))
        with self._lock:
            entry = self._entries.get(module)
        if entry is not None and entry[0] == state:
            return entry[1]
        # Tensors made in inference mode could not be used outside of it.
        with torch.inference_mode(False), torch.no_grad():
            value = make()
        if torch.cuda.is_available():
            if torch.cuda.is_current_stream_capturing():
                return value  # not there before the graph is replayed
            torch.cuda.current_stream().synchronize()  # others may read it from streams of their own
        with self._lock:
            self._entries[module] = state, value
        return value

    def forget(self, module: nn.Module) -> None:
        """Drop the value of ``module``."""
        with self._lock:
            self._entries.pop(module, None)


def tensor_state(tensor: Tensor) -> tuple[object, ...]:
    """What changes when a tensor becomes another, moves in memory, or is changed by what autograd counts."""
    # Tensors of inference mode count nothing, and may be changed in that mode alone.
    version = -1 if tensor.is_inference() else tensor._version
    return id(tensor), tensor.data_ptr(), version, tensor.dtype, tensor.device
