"""Checkpoints from the authors' Google Drive through gdown (extra `drive`).

Written against gdown's documented interface (5.2 to 6.5); the route could not be tried against the real Drive.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol

from atd.errors import LoadError
from atd.registry import DriveFile
from atd.system import install_hint
from atd.weights.integrity import file_sha256

INSTALL_HINT = install_hint("drive")


class _ListedFile(Protocol):
    """A file in gdown's listing of a folder."""

    id: str | None
    path: str


def available() -> bool:
    """Whether gdown is installed."""
    if "gdown" in sys.modules:
        return sys.modules.get("gdown") is not None  # None stands for a module that must not be imported
    return importlib.util.find_spec("gdown") is not None


def download(file: DriveFile, directory: Path) -> Path:
    """Download `file` into the existing folder `directory`; without an id of its own it is looked up in its folder.

    Raises:
        LoadError: it cannot be had, or is not the file whose size and SHA-256 are known.
    """
    try:
        gdown = importlib.import_module("gdown")
    except ImportError as error:
        raise LoadError(f"The Google Drive route needs gdown: {INSTALL_HINT}.") from error

    by_hand = f"download {file.name} from {file.folder_url} in a browser and run `atd convert` on it"
    try:
        file_id = file.id or _find(gdown.download_folder(id=file.folder, skip_download=True, quiet=True), file)
        if file_id is None:
            raise LoadError(f"The Drive folder {file.folder_url} does not list {file.name}; {by_hand}.")
        target = directory / file.name
        result = gdown.download(id=file_id, output=str(target))
    except LoadError:
        raise
    except Exception as error:  # gdown raises its own errors and those of requests
        reason = str(error).strip().splitlines()
        raise LoadError(
            f"Google Drive refused {file.name} ({type(error).__name__}: {reason[0] if reason else 'no reason given'}); "
            f"{by_hand}."
        ) from error
    if result is None or not target.is_file():
        raise LoadError(f"Google Drive gave no file for {file.name}; {by_hand}.")
    _check(target, file)
    return target


def _check(target: Path, file: DriveFile) -> None:
    """Refuse a file that is not the known one; the size is asked first, since it tells a page or a part at once."""
    size = target.stat().st_size
    if file.size is not None and size != file.size:
        raise LoadError(
            f"Google Drive gave {size} bytes for {file.name}, which has {file.size}: a page instead of the file, "
            f"a part of it, or another file. Nothing was kept; try again, or see {file.folder_url}."
        )
    if file.sha256 is not None and (sha256 := file_sha256(target)) != file.sha256:
        raise LoadError(
            f"{file.name} from Google Drive has the SHA-256 {sha256}, expected {file.sha256}: it is another file. "
            f"Nothing was kept; see {file.folder_url}."
        )


def _find(listing: Iterable[_ListedFile] | None, file: DriveFile) -> str | None:
    return next((entry.id for entry in listing or [] if PurePosixPath(entry.path).name == file.name), None)
