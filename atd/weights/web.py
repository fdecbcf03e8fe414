"""One request for a file: which addresses may be asked, where redirects may lead, how long an answer may take.

Addresses are https. Plain http is asked on this machine only, or where the user has named it as the hub (HF_ENDPOINT).
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib
import ipaddress
import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from types import ModuleType
from typing import IO, Protocol, cast
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from atd.errors import LoadError

logger = logging.getLogger("atd")

TIMEOUT = 30.0
"""Seconds for a connection, and for each part of an answer."""
MOST_REDIRECTS = 10

_REDIRECTS = (301, 302, 303, 307, 308)
_told_of_plain_http: set[str] = set()


class UnreachableError(LoadError):
    """There was no answer, or the connection broke before its end: another attempt may do better."""


class _Response(Protocol):
    """An answer as the standard library has it, for errors another type than for files."""

    status: int
    headers: Message

    def read1(self, n: int, /) -> bytes:
        """Bytes of the body, as soon as there are any."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


@dataclass
class Answer:
    """What a server answers, its body yet to be read.

    address  that answered, after all redirects
    status   of HTTP
    headers  of this answer
    own      headers of all that the server gave which was asked first, redirects included
    """

    address: str
    status: int
    headers: Message
    own: list[Message]
    _body: _Response

    @property
    def host(self) -> str:
        """The server that answered."""
        return urlsplit(self.address).netloc

    @property
    def is_page(self) -> bool:
        """Whether the body is said to be HTML, which no file of weights is."""
        return self.headers.get_content_type() in ("text/html", "application/xhtml+xml")

    def read(self, most: int) -> bytes:
        """The next bytes of the body as soon as there are any, `most` at most; none at its end.

        Raises:
            UnreachableError: the connection broke.
        """
        with _broken_connections(self.address):
            return self._body.read1(most)

    def page(self, most: int) -> str:
        """The body as text, of which `most` bytes are read."""
        content = b""
        while len(content) < most and (more := self.read(most - len(content))):
            content += more
        return content.decode("utf-8", errors="replace")


@contextmanager
def ask(
    address: str, headers: Mapping[str, str] | None = None, *, hub: str | None = None
) -> Generator[Answer, None, None]:
    """Ask for `address` by GET and follow its redirects; a status that tells of an error is an answer too.

    Args:
        address: https; http on this machine, or on the server that `hub` names.
        headers: of the request. `Authorization` goes to the server of `address` and to no other.
        hub: the address in HF_ENDPOINT, if the user has set one.

    Raises:
        UnreachableError: no answer.
        LoadError: the address, or one that it leads to, may not be asked.
    """
    _check(address, hub)
    sent = {"Accept-Encoding": "identity", "User-Agent": "atd-restoration", **(headers or {})}
    own: list[Message] = []
    first = _origin(urlsplit(address))
    for _ in range(MOST_REDIRECTS + 1):
        with _broken_connections(address):
            response = _open(address, sent)
        with contextlib.closing(response):
            place = response.headers.get("Location")
            if _origin(urlsplit(address)) == first:
                own.append(response.headers)
            # The body of a redirect is not read: none matters, and it may be endless.
            if response.status not in _REDIRECTS or place is None:
                yield Answer(address, response.status, response.headers, own, response)
                return
        address = _redirected(address, place, hub)
        if _origin(urlsplit(address)) != first:
            sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
    raise LoadError(f"{urlsplit(address).netloc} redirects more than {MOST_REDIRECTS} times; nothing was fetched.")


def _redirected(address: str, place: str, hub: str | None) -> str:
    """Where a redirect of `address` to `place` leads: not out of encryption, nor to another server over plain http."""
    try:
        target = quote(urljoin(address, place), safe="%/:=&?~#+!$,;'@()*[]")
        source, parts = urlsplit(address), urlsplit(target)
    except ValueError as error:
        raise LoadError(f"{urlsplit(address).netloc} redirects to an address that is none ({error}).") from error
    if parts.scheme == "http":
        stays = _is_here(source.hostname) and _is_here(parts.hostname)
        to_hub = hub is not None and _origin(parts) == _origin(urlsplit(hub))
        if source.scheme != "http" or not (stays or to_hub):
            raise LoadError(
                f"{source.netloc} redirects to {parts.netloc} over plain http, where anybody on the way could put "
                "another file in place of it; nothing was fetched."
            )
    _check(target, hub)
    return target


def _check(address: str, hub: str | None) -> None:
    """Refuse an address that may not be asked."""
    parts = urlsplit(address)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname:
        if _is_here(parts.hostname):
            return
        if hub is not None and _origin(parts) == _origin(urlsplit(hub)):
            if hub not in _told_of_plain_http:
                _told_of_plain_http.add(hub)
                logger.warning(
                    "HF_ENDPOINT is %s, which is not encrypted: anybody on the way to it can put other files in place "
                    "of those without a known SHA-256, and read HF_TOKEN",
                    hub,
                )
            return
    raise LoadError(f"{address[:200]} is not asked for files: only https addresses are.")


def _is_here(host: str | None) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    try:
        port = parts.port
    except ValueError:  # no number: no server is there
        port = -1
    return parts.scheme, parts.hostname, port or {"https": 443, "http": 80}.get(parts.scheme)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are answers: `ask` looks at where they lead."""

    def http_error_302(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message) -> None:
        """Follow nothing."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=_tls()))


def _tls() -> ssl.SSLContext:
    """Certificates of the operating system, through truststore where huggingface_hub's client has brought it."""
    try:
        truststore: ModuleType = importlib.import_module("truststore")
    except ImportError:
        return ssl.create_default_context()
    context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context


def _open(address: str, headers: Mapping[str, str]) -> _Response:
    try:
        return _opener().open(urllib.request.Request(address, headers=dict(headers)), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        return cast(_Response, error)  # it is the answer, whatever its status


@contextmanager
def _broken_connections(address: str) -> Generator[None, None, None]:
    """What the standard library raises for a connection that fails, as our error."""
    host = urlsplit(address).netloc
    try:
        yield
    except urllib.error.URLError as error:
        raise UnreachableError(f"{host} could not be reached ({_reason(error.reason)})") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise UnreachableError(f"the connection to {host} broke ({_reason(error)})") from error


def _reason(error: object) -> str:
    """One line on an error of the system or of the standard library."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text.rstrip(".: ")


def status_text(status: int) -> str:
    """A status of HTTP with its name."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
