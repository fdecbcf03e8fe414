"""What surrounds the decoders: their errors become one type, their warnings get a file, and C libraries keep quiet."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from atd.errors import ImageError, MissingExtraError, NotEnoughMemoryError

_thread = threading.local()


@contextmanager
def decoding(path: Path) -> Generator[None, None, None]:
    """A block that decodes `path`: decoders raise whatever they stumble over; callers get one type and one sentence."""
    outer = file_being_decoded()
    _thread.path = path
    try:
        yield
    except ImageError as error:
        raise error if str(path) in str(error) else ImageError(f"{path}: {error}") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError, MissingExtraError):
        raise
    except MemoryError as error:
        raise NotEnoughMemoryError(f"{path} does not fit into memory: stream it, or restore a part of it") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path} cannot be decoded, it is broken or cut short ({reason})") from error
    finally:
        _thread.path = outer


def file_being_decoded() -> Path | None:
    """What this thread decodes now: decoders warn without saying of which file."""
    return getattr(_thread, "path", None)


def silence_libtiff() -> None:
    """Keep Pillow's libtiff from writing to stderr, past Python: what it would say comes as an error too.

    For programs, not for libraries: it is a switch of the process. No effect where the library cannot be reached.
    """
    from PIL import _imaging

    try:
        libtiff = ctypes.CDLL(_imaging.__file__)  # symbols are looked up in what it is linked with, too
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(libtiff, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
    except (OSError, AttributeError):
        return
