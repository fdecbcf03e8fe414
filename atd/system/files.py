"""Files that appear complete or not at all."""

from __future__ import annotations

import os
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
