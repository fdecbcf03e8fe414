"""A file that only one process at a time may work on."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_held: set[int] = set()
"""Descriptors of the files that this process holds."""


def _let_go_in_child() -> None:
    # A forked child has the descriptors, and with them the locks: it would keep them when the parent is killed. The
    # numbers lead nowhere instead of being closed, because the file objects will close them.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in _held:
        os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def exclusive_file(path: Path) -> Generator[BinaryIO, None, None]:
    """Open `path` for reading and writing, made if need be, and locked against everybody else who opens it so.

    The lock goes with the process, however it ends, and child processes that it forks do not have it. Where the system
    or the file system knows no such locks, there is none. The holder may delete the file.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    while True:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b") as file:
            _lock(file)
            # The holder before may have deleted the file between our opening it and locking it.
            if _is_at(file, path):
                _held.add(file.fileno())
                try:
                    yield file
                finally:
                    _held.discard(file.fileno())
                return


def remove_if_free(path: Path) -> bool:
    """Remove a file that was made by `exclusive_file` and that no process holds any more; whether it was removed.

    Where the system or the file system knows no locks, nobody can tell, and it stays.
    """
    if fcntl is None:
        return False
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                path.unlink()
                return True
    except OSError:
        pass
    return False


def _lock(file: BinaryIO) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


def _is_at(file: BinaryIO, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
