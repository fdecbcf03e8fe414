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


@contextmanager
def exclusive_file(path: Path) -> Generator[BinaryIO, None, None]:
    """Open `path` for reading and writing, made if need be, and locked against everybody else who opens it so.

    The lock goes with the process, however it ends. Where the system or the file system knows no such locks, there is
    none. The holder may delete the file.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    while True:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b") as file:
            _lock(file)
            # The holder before may have deleted the file between our opening it and locking it.
            if _is_at(file, path):
                yield file
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
