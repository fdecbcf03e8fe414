"""Checkpoints from the authors' Google Drive: files by their ids, ids from the listing of a public folder.

Written against the pages that Google Drive gives without an account; it could not be tried against the real one. Where
this fails and gdown (extra `drive`) is installed, gdown is asked.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import urlencode, urljoin, urlsplit

from atd.errors import LoadError
from atd.registry import DriveFile
from atd.system import install_hint
from atd.weights.transfer import (
    IncompleteFile,
    PageError,
    Received,
    UnreachableError,
    Wanted,
    WrongFileError,
    adopt,
    fetch,
)
from atd.weights.web import ask, status_text

logger = logging.getLogger("atd")

FILE_ADDRESS = "https://drive.usercontent.google.com/download"
FOLDER_ADDRESS = "https://drive.google.com/embeddedfolderview"
INSTALL_HINT = install_hint("drive")

_MOST_OF_LISTING = 4 << 20
_MOST_FOLDERS = 20
_ID = re.compile(r"[\w-]{5,100}", re.ASCII)


class QuotaError(LoadError):
    """Google Drive gives the file to nobody for the time being."""


@dataclass(frozen=True)
class Entry:
    """A line of a folder's listing."""

    id: str
    name: str
    is_folder: bool


def fetch_file(file: DriveFile, into: IncompleteFile, *, most: int, beside: int = 0) -> Received:
    """Fetch `file` into `into`; without an id of its own it is looked up in its folder.

    Args:
        file: of the registry.
        into: where it goes; what is there already is continued.
        most: bytes that are read at most.
        beside: bytes of free disk that are needed besides.

    Raises:
        LoadError: it cannot be had, or is not the file whose size and SHA-256 are known.
        NotEnoughDiskError: it does not fit.
    """
    wanted = Wanted(
        label=f"{file.name} of Google Drive",
        address=FILE_ADDRESS,
        most=most,
        size=file.size,
        sha256=file.sha256,
        beside=beside,
    )
    try:
        return _fetch(file, wanted, into)
    except (WrongFileError, UnreachableError):
        raise
    except LoadError as error:
        if not available():
            raise
        logger.info("%s gdown is asked.", error)
        return _fetch_by_gdown(file, wanted, into)


def _fetch(file: DriveFile, wanted: Wanted, into: IncompleteFile) -> Received:
    identity = file.id or _find(file)
    query = urlencode({"id": identity, "export": "download", "confirm": "t"})
    wanted = replace(wanted, address=f"{FILE_ADDRESS}?{query}", key=f"Google Drive {identity}")
    try:
        return fetch(wanted, into)
    except PageError as error:
        confirmed = _confirmed(error, identity)
        if confirmed is None:
            raise _refusal(file, error) from error
        try:
            return fetch(replace(wanted, address=confirmed), into)
        except PageError as again:
            raise _refusal(file, again) from again


def _find(file: DriveFile) -> str:
    """The id of a file that its folder or a folder in it lists."""
    folders, seen = [file.folder], {file.folder}
    for folder in folders:
        for entry in _list(folder):
            if entry.name == file.name and not entry.is_folder:
                return entry.id
            if entry.is_folder and entry.id not in seen and len(folders) < _MOST_FOLDERS:
                seen.add(entry.id)
                folders.append(entry.id)
    raise LoadError(f"The Drive folder {file.folder_url} does not list {file.name}; {_by_hand(file)}.")


def _list(folder: str) -> list[Entry]:
    """What a public folder holds."""
    try:
        return _parsed_listing(folder)
    except UnreachableError as error:
        raise UnreachableError(f"The listing of the folder {folder} of Google Drive: {error}.") from error


def _parsed_listing(folder: str) -> list[Entry]:
    with ask(f"{FOLDER_ADDRESS}?{urlencode({'id': folder})}") as answer:
        if answer.status != 200:
            raise LoadError(
                f"Google Drive answers {status_text(answer.status)} to the listing of the folder {folder}: it is not "
                "public any more, or has moved."
            )
        parser = _Listing()
        parser.feed(answer.page(_MOST_OF_LISTING))
    return parser.entries


class _Listing(HTMLParser):
    """Reads the entries of an embedded folder: an element with the id, in it a link and the title."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self._id = ""
        self._is_folder = False
        self._title: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An entry, its link or its title begins."""
        attributes = {name: value or "" for name, value in attrs}
        classes = attributes.get("class", "").split()
        identity = attributes.get("id", "").removeprefix("entry-")
        if "flip-entry" in classes:
            self._id, self._is_folder = identity if _ID.fullmatch(identity) else "", False
        elif tag == "a" and self._id and "/folders/" in attributes.get("href", ""):
            self._is_folder = True
        elif "flip-entry-title" in classes and self._id:
            self._title = []

    def handle_data(self, data: str) -> None:
        """Text, of which a title's is kept."""
        if self._title is not None:
            self._title.append(data)

    def handle_endtag(self, tag: str) -> None:
        """A title ends."""
        if self._title is not None:
            self.entries.append(Entry(self._id, "".join(self._title).strip(), self._is_folder))
            self._id, self._title = "", None


class _Form(HTMLParser):
    """Reads the form by which a download is confirmed, and the words of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.words: list[str] = []
        self._inside = False
        self._silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """The form, or a field of it."""
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form" and self.action is None and attributes.get("action"):
            self.action, self._inside = attributes["action"], True
        elif tag == "input" and self._inside and attributes.get("name"):
            self.fields[attributes["name"]] = attributes.get("value", "")
        self._silent = tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        """Words of the page."""
        if not self._silent:
            self.words += data.split()

    def handle_endtag(self, tag: str) -> None:
        """The form ends."""
        self._silent = False
        if tag == "form":
            self._inside = False


def _confirmed(error: PageError, identity: str) -> str | None:
    """The address to which the page's form leads, if it is one that confirms the download of this very file."""
    form = _read(error.page)
    if form.action is None or form.fields.get("id") != identity or "confirm" not in form.fields:
        return None
    address = urljoin(error.answer.address, form.action)
    if urlsplit(address)[:2] != urlsplit(FILE_ADDRESS)[:2]:
        return None
    return f"{address}?{urlencode(form.fields)}"


def _read(page: str) -> _Form:
    form = _Form()
    form.feed(page)
    return form


def _refusal(file: DriveFile, error: PageError) -> LoadError:
    """What Google's page says, in a sentence."""
    words = " ".join(_read(error.page).words)
    if re.search(r"quota exceeded|too many users|limit.{0,40}exceeded", words, re.IGNORECASE):
        return QuotaError(
            f"Google Drive gives {file.name} to nobody for now: its quota of downloads is used up. Try again in a day, "
            f"or {_by_hand(file)}."
        )
    if error.answer.status == 404:
        return LoadError(f"Google Drive has no {file.name} any more (404 Not Found); {_by_hand(file)}.")
    if re.search(r"sign in|log in|need access|request access|permission", words, re.IGNORECASE):
        return LoadError(f"Google Drive asks for an account before it gives {file.name}; {_by_hand(file)}.")
    said = f", which begins: {words[:80]}" if words else ""
    return LoadError(f"Google Drive gave a web page in place of {file.name}{said}; {_by_hand(file)}.")


def _by_hand(file: DriveFile) -> str:
    return f"download {file.name} from {file.folder_url} in a browser and run `atd convert` on it"


def available() -> bool:
    """Whether gdown is installed."""
    if "gdown" in sys.modules:
        return sys.modules.get("gdown") is not None  # None stands for a module that must not be imported
    return importlib.util.find_spec("gdown") is not None


class _Listed(Protocol):
    """An entry of gdown's listing."""

    id: str | None
    path: str


def _fetch_by_gdown(file: DriveFile, wanted: Wanted, into: IncompleteFile) -> Received:
    """The same by gdown, written against its documented interface (5.2 to 6.5)."""
    gdown = importlib.import_module("gdown")
    with tempfile.TemporaryDirectory(prefix="gdown-", dir=into.path.parent) as folder:
        target = Path(folder) / file.name
        try:
            identity = file.id or _named(gdown.download_folder(id=file.folder, skip_download=True, quiet=True), file)
            result = identity and gdown.download(id=identity, output=str(target))
        except Exception as error:  # gdown raises its own errors and those of requests
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise LoadError(
                f"Google Drive refused {file.name} to gdown ({type(error).__name__}: {reason}); {_by_hand(file)}."
            ) from error
        if not result or not target.is_file():
            raise LoadError(f"Google Drive gave gdown no file for {file.name}; {_by_hand(file)}.")
        return adopt(target, wanted, into)


def _named(listing: Iterable[_Listed] | None, file: DriveFile) -> str | None:
    return next((entry.id for entry in listing or [] if PurePosixPath(entry.path).name == file.name), None)
