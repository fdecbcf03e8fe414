"""Whether a file in the cache is still the one that was put there.

Its SHA-256 is kept beside it with its size, time and inode. While those three are as they were, the file is taken to be
the same; when one has changed, its content is compared again. So a file that was replaced, edited or damaged is
refused, and an unchanged one costs no more than a look at the folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from atd.errors import LoadError
from atd.system import atomic_write

RECORD = "integrity.json"
_ORIGIN = "made of"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The file that a placed one was made of.

    name    what it was called
    where   it was fetched from
    sha256  of its content
    size    in bytes
    """

    name: str
    where: str
    sha256: str
    size: int


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_file(path: Path, origin: Origin | None = None) -> str:
    """Keep the state of `path` in the folder that it lies in, and of what it was made; return its SHA-256."""
    sha256 = file_sha256(path)
    _write(path, sha256, origin)
    return sha256


def recorded_sha256(path: Path) -> str | None:
    """The SHA-256 that is recorded of `path`; None where none is.

    Raises:
        LoadError: the record cannot be read.
    """
    return _recorded(path)[0]


def origin_of(path: Path) -> Origin | None:
    """What `path` was made of, as recorded; None where that is not known."""
    try:
        return Origin(**json.loads((path.parent / RECORD).read_text(encoding="utf-8"))[_ORIGIN])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_file(path: Path) -> str:
    """The SHA-256 of `path`, which is recorded when it is met for the first time.

    Raises:
        LoadError: the content is not the recorded one.
    """
    known, outside = _recorded(path)
    if known is None:
        return record_file(path)
    if outside == _outside(path):
        return known
    actual = file_sha256(path)
    if actual != known:
        raise LoadError(
            f"{path} has changed since it was put into the cache (SHA-256 {actual}, recorded {known}). Delete the "
            f"folder {path.parent} and fetch or convert the weights again; nothing was loaded."
        )
    _write(path, known, origin_of(path))
    return known


def _recorded(path: Path) -> tuple[str | None, dict[str, int]]:
    try:
        state = json.loads((path.parent / RECORD).read_text(encoding="utf-8"))[path.name]
        return str(state["sha256"]), {key: state[key] for key in ("size", "mtime_ns", "inode")}
    except FileNotFoundError:
        return None, {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(
            f"{path.parent / RECORD}, which says what {path.name} was, cannot be read ({type(error).__name__}): delete "
            f"the folder {path.parent} and fetch or convert the weights again."
        ) from error


def _outside(path: Path) -> dict[str, int]:
    """What changes when a file is replaced or written to, and costs nothing to read."""
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}


def _write(path: Path, sha256: str, origin: Origin | None) -> None:
    content: dict[str, object] = {path.name: {"sha256": sha256, **_outside(path)}}
    if origin is not None:
        content[_ORIGIN] = asdict(origin)
    try:
        with atomic_write(path.parent / RECORD) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):  # a cache that this user may only read
            raise
