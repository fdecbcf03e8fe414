"""A cache of index tables that is bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import Tensor

Table = TypeVar("Table", bound=tuple[Any, ...])


class TableCache:
    """Tuples of tensors by key, those used last; threads may share it.

    Args:
        limit: bytes that the tensors may take together. A larger single entry is made and not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[Hashable, tuple[Any, ...]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that the kept tensors take."""
        return self._bytes

    def get(self, key: Hashable, make: Callable[[], Table]) -> Table:
        """The entry of ``key``, made by ``make`` where there is none; two threads may make the same one at once."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]  # pyright: ignore[reportReturnType]
        value = make()
        size = _size(value)
        if size > self.limit:
            return value
        with self._lock:
            if key not in self._entries:
                while self._bytes + size > self.limit:
                    self._bytes -= _size(self._entries.popitem(last=False)[1])
                self._entries[key] = value
                self._bytes += size
        return value

    def clear(self) -> None:
        """Forget every entry."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0


def _size(value: tuple[Any, ...]) -> int:
    return sum(part.nbytes for part in value if isinstance(part, Tensor))
