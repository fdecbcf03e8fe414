"""Fetch one file: continue where an earlier attempt broke off, compare it with what is known of it, hold it alone.

What has arrived lies under a name of ours in a file that one process at a time works on, with a note beside it that
says of which file of which server it is the beginning. Whoever fetches moves or reads it when it is whole and right.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from atd.errors import LoadError, NotEnoughDiskError
from atd.system import atomic_write, exclusive_file, is_mapping, naming
from atd.weights.integrity import file_sha256
from atd.weights.web import Answer, UnreachableError, ask, status_text

logger = logging.getLogger("atd")

ATTEMPTS = 6
"""Requests for one file, where connections break or the server is busy."""
PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds before the next attempt; the last one is for all that follow."""

_PART = 1 << 20
_MOST_OF_PAGE = 1 << 20
_BUSY = (408, 425, 429, 500, 502, 503, 504)


class WrongFileError(LoadError):
    """What the server has is not the file that is known."""


class UnknownContentError(WrongFileError):
    """All bytes are there, and they are not those that are known."""


class StatusError(LoadError):
    """The server refused.

    Attributes:
        answer: with status and headers; its body is no longer there.
    """

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer


class PageError(StatusError):
    """The server gave a web page in place of the file.

    Attributes:
        page: its HTML.
    """

    def __init__(self, message: str, answer: Answer, page: str) -> None:
        super().__init__(message, answer)
        self.page = page


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file to fetch.

    label    what sentences call it, such as "atd_real.pth of Google Drive"
    address  of the file
    key      what the file is called in the note beside its beginning, where the address may change between attempts
    most     bytes that are read at most
    size     in bytes, where it is known
    sha256   of the content, where it is known
    beside   bytes of free disk that are needed besides
    headers  of the request
    hub      the address in HF_ENDPOINT, which may be plain http
    """

    label: str
    address: str
    most: int
    key: str = ""
    size: int | None = None
    sha256: str | None = None
    beside: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hub: str | None = None


@dataclass(frozen=True)
class Received:
    """What was fetched: its SHA-256 and size, and the answer it came with (None where all of it was there)."""

    sha256: str
    size: int
    answer: Answer | None


class IncompleteFile:
    """The beginning of a file, held against other processes; `path` is where it lies."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._note = _note_of(path)

    @property
    def length(self) -> int:
        """Bytes that are there."""
        return self._file.seek(0, os.SEEK_END)

    def append(self, content: bytes) -> None:
        """Add bytes; they are on the file when this returns."""
        with naming(self.path):
            self._file.write(content)
            self._file.flush()

    def begin(self, note: Mapping[str, object]) -> None:
        """Start anew with an empty file, and note what it will be the beginning of."""
        self._empty()
        with atomic_write(self._note) as temporary:
            temporary.write_text(json.dumps(note) + "\n", encoding="utf-8")

    def note(self) -> Mapping[object, object]:
        """What the file is the beginning of; empty where that is not known."""
        try:
            note: object = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if is_mapping(note) else {}

    def discard(self) -> None:
        """Keep nothing of it; the file itself goes when it is let go."""
        self._empty()
        self._note.unlink(missing_ok=True)

    def _empty(self) -> None:
        self._file.seek(0)
        self._file.truncate()

    def move(self, target: Path) -> None:
        """Give the file, which is whole, its own name."""
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.path, target)
        self._note.unlink(missing_ok=True)


@contextmanager
def incomplete_file(path: Path, label: str) -> Generator[IncompleteFile, None, None]:
    """Hold the beginning of a file; where another process holds it, wait until that one is done with it.

    An empty one is removed in the end, and its folder if nothing else is there.

    Raises:
        OSError: it cannot be written; the error names it.
    """
    with ExitStack() as stack:
        file = _hold(stack, path, label)
        try:
            yield IncompleteFile(path, file)
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())) and path.stat().st_size == 0:
                    _note_of(path).unlink(missing_ok=True)
                    path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def _hold(stack: ExitStack, path: Path, label: str) -> BinaryIO:
    told = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return stack.enter_context(exclusive_file(path))
        except BlockingIOError:
            if not told:
                logger.info("another process is downloading %s: waiting for it", label)
                told = True
            time.sleep(0.1)
        except FileNotFoundError:  # whoever was done with it has removed the folder
            if not path.parent.parent.is_dir():
                raise


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def fetch(wanted: Wanted, file: IncompleteFile) -> Received:
    """Fetch what of `wanted` is not in `file` yet, and compare the whole with what is known of it.

    What is wrong is not kept. What broke off is, and goes on next time, if the server names its files by ETags or the
    SHA-256 is known.

    Raises:
        WrongFileError: it is not the file that is known, or larger than may be.
        PageError: there is a web page in its place.
        StatusError: the server refuses.
        UnreachableError: it could not be reached, or the connection broke time and again.
        NotEnoughDiskError: it does not fit.
    """
    continued = file.length > 0
    try:
        return _checked(wanted, file, _fetch_all(wanted, file))
    except UnknownContentError:
        if not continued:
            raise
    return _checked(wanted, file, _fetch_all(wanted, file))  # the beginning was another file's


def adopt(path: Path, wanted: Wanted, file: IncompleteFile) -> Received:
    """Take a file that somebody else has fetched in place of what is in `file`, and compare it.

    Raises:
        WrongFileError: it is not the file that is known, or larger than may be.
    """
    size = path.stat().st_size
    if size > wanted.most or wanted.size not in (None, size):
        raise WrongFileError(f"{wanted.label} has {size} bytes, expected {wanted.size or f'{wanted.most} at most'}.")
    file.begin({})
    with path.open("rb") as content:
        while part := content.read(_PART):
            file.append(part)
    return _checked(wanted, file, None)


def _checked(wanted: Wanted, file: IncompleteFile, answer: Answer | None) -> Received:
    """What was received, whole; discarded when it is not the known file."""
    sha256 = file_sha256(file.path)
    if wanted.sha256 not in (None, sha256):
        file.discard()
        raise UnknownContentError(
            f"{wanted.label} has the SHA-256 {sha256}, expected {wanted.sha256}: it is another file, or was changed on "
            "its way. Nothing was kept."
        )
    return Received(sha256, file.length, answer)


def _fetch_all(wanted: Wanted, file: IncompleteFile) -> Answer | None:
    """Attempts until all bytes are there; the last answer."""
    heard = False
    for attempt in range(ATTEMPTS):
        before = file.length
        try:
            return _attempt(wanted, file)
        except UnreachableError as error:
            heard = heard or file.length > before or isinstance(error, _BusyError)
            # A server that never answered is not asked again and again: most likely there is no connection.
            if attempt + 1 == ATTEMPTS or (attempt > 0 and not heard):
                kept = f"; {_megabytes(file.length)} are kept, and the next attempt goes on from there"
                raise UnreachableError(f"{wanted.label}: {error}{kept if file.length else ''}.") from error
            logger.debug("%s: %s; once more", wanted.label, error)
            time.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
    raise AssertionError("the last attempt returns or raises")


class _BusyError(UnreachableError):
    """The server answered that it cannot answer now."""


def _attempt(wanted: Wanted, file: IncompleteFile) -> Answer | None:
    """One request; returns when all bytes are there."""
    key = wanted.key or wanted.address
    note = file.note()
    have, tag = file.length, note.get("etag")
    if have and (note.get("key") != key or not (wanted.sha256 or tag)):
        file.discard()
        have, tag = 0, None
    if have and have == note.get("size"):
        return None
    headers = dict(wanted.headers)
    if have:
        headers["Range"] = f"bytes={have}-"
        if isinstance(tag, str):
            headers["If-Range"] = tag
    with ask(wanted.address, headers, hub=wanted.hub) as answer:
        _check_answer(wanted, answer, file)
        total = _announced(answer)
        strong = _strong_tag(answer)
        continues = answer.status == HTTPStatus.PARTIAL_CONTENT
        if continues and (_first_byte(answer) != have or (tag and strong and tag != strong)):
            file.discard()
            raise _BusyError(f"{answer.host} continued another file")
        _check_size(wanted, answer, total)
        if not continues:
            if have:
                logger.debug("%s: %s cannot continue; from the beginning", wanted.label, answer.host)
            file.begin({"key": key, "etag": strong, "size": total})
            have = 0
        _check_disk(wanted, file, total, have)
        _receive(wanted, answer, file, have, total)
        return answer


def _check_answer(wanted: Wanted, answer: Answer, file: IncompleteFile) -> None:
    """Refuse an answer that is not the file or a part of it."""
    if answer.status in _BUSY:
        raise _BusyError(f"{answer.host} answers {status_text(answer.status)}")
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and file.length:
        file.discard()
        raise _BusyError(f"{answer.host} has another file now")
    if answer.is_page and answer.status in (200, 206, 403, 404, 429):
        raise PageError(
            f"{answer.host} gave a web page ({status_text(answer.status)}) in place of {wanted.label}.",
            answer,
            answer.page(_MOST_OF_PAGE),
        )
    if answer.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise StatusError(f"{answer.host} answers {status_text(answer.status)} to {wanted.label}.", answer)
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise StatusError(f"{answer.host} gave {wanted.label} compressed, which was not asked for.", answer)


def _check_size(wanted: Wanted, answer: Answer, total: int | None) -> None:
    if total is None:
        return
    if wanted.size is not None and total != wanted.size:
        raise WrongFileError(
            f"{wanted.label} has {total} bytes at {answer.host}, expected {wanted.size}: it is another file. Nothing "
            "was kept."
        )
    if total > wanted.most:
        raise WrongFileError(
            f"{wanted.label} has {total} bytes at {answer.host}, and no file of this network has more than "
            f"{wanted.most}. Nothing was fetched."
        )


def _check_disk(wanted: Wanted, file: IncompleteFile, total: int | None, have: int) -> None:
    size = total or wanted.size
    if size is None:
        return
    needed, free = size - have + wanted.beside, shutil.disk_usage(file.path.parent).free
    if needed > free:
        raise NotEnoughDiskError(
            f"{wanted.label} needs {_megabytes(needed)} in {file.path.parent.parent}, where {_megabytes(free)} are "
            "free: make room, or set ATD_HOME and HF_HOME to folders on another disk."
        )


def _receive(wanted: Wanted, answer: Answer, file: IncompleteFile, have: int, total: int | None) -> None:
    """Append the body to `file`."""
    expected = total or wanted.size
    logger.info("downloading %s%s", wanted.label, f", {_megabytes(expected)}" if expected else "")
    limit = expected or wanted.most
    with _progress(have, expected) as advance:
        while have < limit and (content := answer.read(min(_PART, limit - have))):
            file.append(content)
            have += len(content)
            advance(len(content))
    if expected is not None and have < expected:
        raise UnreachableError(f"the connection to {answer.host} broke after {have} of {expected} bytes")
    if expected is None and have >= wanted.most:
        file.discard()
        raise WrongFileError(
            f"{wanted.label} does not end within {wanted.most} bytes, the most that a file of this network has. "
            "Nothing was kept."
        )


@contextmanager
def _progress(have: int, total: int | None) -> Generator[Callable[[int], object], None, None]:
    """What to call with the bytes that have arrived; draws a bar where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield int
        return
    from huggingface_hub.utils import tqdm

    with tqdm(initial=have, total=total, unit="B", unit_scale=True, leave=False) as bar:
        yield bar.update


def _announced(answer: Answer) -> int | None:
    """The size of the whole file, as far as the answer says it."""
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes \d{1,18}-\d{1,18}/(\d{1,18})", answer.headers.get("Content-Range", "").strip())
        return int(match[1]) if match else None
    length = answer.headers.get("Content-Length", "").strip()
    return int(length) if re.fullmatch(r"\d{1,18}", length) else None


def _first_byte(answer: Answer) -> int | None:
    match = re.match(r"bytes (\d{1,18})-", answer.headers.get("Content-Range", "").strip())
    return int(match[1]) if match else None


def _strong_tag(answer: Answer) -> str | None:
    """The ETag, if it says that equal tags are equal bytes."""
    tag = answer.headers.get("ETag", "").strip()
    return tag if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', tag) else None


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
