"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Generator[Path, None, None]:
    """A name beside `path` to write to; renamed to `path` when the block ends well, removed when it does not.

    The name keeps the ending of `path`, by which encoders choose their format, and is short whatever `path` is called.
    """
    temporary = path.with_name(f".atd-{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def expand_user(path: Path) -> Path:
    """`path` with its ~ expanded; a user without a home folder gets a folder of their own among temporary files.

    Raises:
        PermissionError: that folder is somebody else's, who could put files into it.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        own = Path(tempfile.gettempdir(), f"atd-{os.getuid()}")
        own.mkdir(mode=0o700, exist_ok=True)
        if own.stat().st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "set HOME: this folder is somebody else's", str(own)) from None
        return own.joinpath(*path.parts[1:])
