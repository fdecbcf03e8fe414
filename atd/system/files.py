"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import re
import tempfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from atd.errors import DataNotFoundError

# Of a web address; making a path of it leaves one slash.
_ADDRESS = re.compile(r"(?i)(https?|ftp|s3|gs):/+")


def check_exists(path: Path) -> None:
    """Refuse an input that is not there, and say why: a web address, or a folder on the way that is missing.

    Raises:
        DataNotFoundError: there is no such file or folder.
    """
    if address := _ADDRESS.match(str(path)):
        rest = str(path)[address.end() :]
        raise DataNotFoundError(f"{address[1]}://{rest} is a web address: download the file, and give its path")
    if path.exists():
        return
    missing = path
    while missing.parent != missing and not missing.parent.exists():
        missing = missing.parent
    why = "" if missing == path else f": there is no folder {missing}"
    raise DataNotFoundError(f"{path} does not exist{why}")


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
