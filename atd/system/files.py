"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import tempfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from atd.errors import AtdError, DataNotFoundError
from atd.system.locks import exclusive_file, remove_if_free

# Of a web address; making a path of it leaves one slash.
_ADDRESS = re.compile(r"(?i)(https?|ftp|s3|gs):/+")

_TEMPORARY = re.compile(r"\.atd-[0-9a-f]{12}\.tmp(\..*)?", re.DOTALL)
_tidied: set[Path] = set()

DISK_ERRORS = tuple(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS") if hasattr(errno, name)
)
"""Numbers of errors that are about the disk, whichever file it is: full, over quota, too large, broken, read-only."""


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


def ignores_case(folder: Path) -> bool:
    """Whether a file in `folder`, which need not exist yet, goes by its name in capitals and in small letters alike.

    Told by what lies there: nothing is written. A folder without any name that has letters is taken to tell them apart.
    """
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    folder = folder.resolve()
    with contextlib.suppress(OSError):
        for path in itertools.chain(folder.iterdir(), [folder]):
            if path.name.swapcase() != path.name:
                other = path.with_name(path.name.swapcase())
                return other.exists() and path.samefile(other)
    return False


@contextmanager
def atomic_write(path: Path) -> Generator[Path, None, None]:
    """A name beside `path` to write to; renamed to `path` when the block ends well, removed when it does not.

    The name keeps the ending of `path`, by which encoders choose their format, and is short whatever `path` is called.
    The file is there, empty, when the block begins. What killed processes left in the folder is removed.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    _remove_abandoned(path.parent)
    temporary = path.with_name(f".atd-{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        with naming(path, temporary), exclusive_file(temporary) as file:
            yield temporary
            if os.name == "nt":
                file.close()  # open files cannot be renamed there
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Generator[None, None, None]:
    """A block that writes `path`, by the name `temporary` for the time being: errors of the disk say `path`.

    A write that fails, as on a full disk, does not say of which file.
    """
    try:
        yield
    except OSError as error:
        is_nameless = error.filename is None and error.errno in DISK_ERRORS and not isinstance(error, AtdError)
        if is_nameless or (temporary is not None and error.filename == str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def disk_error(text: str, path: Path) -> OSError | None:
    """The error of the disk that a C library told of in words while it wrote `path`; None where it told of another."""
    for number in DISK_ERRORS:
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number), str(path))
    return None


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files that processes left in `folder` when they were killed; looks once a process."""
    folder = folder.absolute()
    if folder in _tidied:
        return
    _tidied.add(folder)
    try:
        with os.scandir(folder) as entries:
            left = [Path(entry) for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    except OSError:  # no such folder: whoever writes to it will say so
        return
    for path in left:
        remove_if_free(path)


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
