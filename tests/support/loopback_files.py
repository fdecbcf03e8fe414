"""Servers of files on 127.0.0.1, with faults on demand: any addresses (as GitHub's releases), and Google Drive."""

from __future__ import annotations

import contextlib
import hashlib
import html
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from loopback_server import LoopbackHandler, LoopbackServer

Sent = tuple[int, dict[str, str], bytes]


@dataclass
class Request:
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class LoopbackFiles(LoopbackServer):
    """`with LoopbackFiles() as server:` serves until the block ends.

    files         {path: content, or a function of the request that gives status, headers and body}
    requests      every request that came in
    drops         the connection of each next answer is closed after so many bytes of the body
    ranges        whether Range is understood
    tags          whether files have ETags
    sent          bytes of bodies that were handed to the system
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.files: dict[str, bytes | Callable[[Request], Sent]] = {}
        self.requests: list[Request] = []
        self.drops: list[int] = []
        self.ranges = self.tags = True
        self.sent = 0


class _Handler(LoopbackHandler):
    served: LoopbackFiles

    def do_GET(self) -> None:
        server = self.served
        parts = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(parts.path, dict(parse_qsl(parts.query)), headers)
        server.requests.append(request)
        content = server.files.get(parts.path)
        if content is None:
            status, sent, body = 404, {"Content-Type": "text/html"}, b"<html><title>Not Found</title></html>"
        elif callable(content):
            status, sent, body = content(request)
        else:
            status, sent, body = 200, {}, content
        if status == 200 and "Content-Type" not in sent:
            status, sent, body = self._part(request, sent, body)
        self.close_connection = True
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | sent).items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        drop = server.drops.pop(0) if server.drops and status in (200, 206) else None
        with contextlib.suppress(OSError):
            self.send(body if drop is None else body[:drop])

    def _part(self, request: Request, headers: dict[str, str], body: bytes) -> Sent:
        """The part of a file that is asked for."""
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        if self.served.tags:
            headers = {"ETag": tag, **headers}
        if not self.served.ranges or request.range is None or request.headers.get("if-range", tag) != tag:
            return 200, headers, body
        first = int(request.range.removeprefix("bytes=").removesuffix("-"))
        if first >= len(body):
            return 416, {**headers, "Content-Range": f"bytes */{len(body)}"}, b""
        return 206, {**headers, "Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}, body[first:]

    def send_part(self, body: bytes) -> None:
        for start in range(0, len(body), 1 << 16):
            self.wfile.write(body[start : start + (1 << 16)])
            self.served.sent += len(body[start : start + (1 << 16)])


QUOTA = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body><p>Sorry, you can't view
or download this file at this time.</p><p>Too many users have viewed or downloaded this file recently.</p></body>"""

FORM = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<p>{name} is too large for Google to scan for viruses. Would you still like to download this file?</p>
<form id="download-form" action="{action}" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="{uuid}"></form></body></html>"""

ENTRY = """<div class="flip-entry" id="entry-{id}" tabindex="0" role="link"><div class="flip-entry-info">
<a href="https://drive.google.com/{kind}/{id}" target="_blank"><div class="flip-entry-visual"></div>
<div class="flip-entry-title">{name}</div></a></div></div>"""


@dataclass
class LoopbackDrive:
    """Google Drive's two addresses on a server: files by id, folders by id.

    files    {id: content}
    folders  {id: [(name, id), …]}; an id that is a folder's own is one
    pages    {id: (status, HTML)}, given in place of the file
    forms    ids whose download is to be confirmed once more
    action   where the form leads; the address of files itself by default
    """

    server: LoopbackFiles
    files: dict[str, bytes] = field(default_factory=dict)
    folders: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    pages: dict[str, tuple[int, str]] = field(default_factory=dict)
    forms: set[str] = field(default_factory=set)
    action: str = ""

    def __post_init__(self) -> None:
        self.server.files |= {"/download": self._file, "/embeddedfolderview": self._folder}

    @property
    def asked(self) -> list[str]:
        """What was asked for: "file ID" or "folder ID" each."""
        kinds = {"/download": "file", "/embeddedfolderview": "folder"}
        return [f"{kinds[request.path]} {request.query['id']}" for request in self.server.requests]

    def _file(self, request: Request) -> Sent:
        identity = request.query["id"]
        assert (request.query["export"], request.query["confirm"]) == ("download", "t")
        if identity in self.pages:
            status, page = self.pages[identity]
            return status, {"Content-Type": "text/html; charset=utf-8"}, page.encode()
        if identity in self.forms and request.query.get("uuid") != "0b5e":
            action = self.action or f"{self.server.url}/download"
            page = FORM.format(id=identity, name="file", uuid="0b5e", action=action)
            return 200, {"Content-Type": "text/html; charset=utf-8"}, page.encode()
        # The name is the uploader's, and no name of ours.
        return 200, {"Content-Disposition": 'attachment; filename="../../../evil.pth"'}, self.files[identity]

    def _folder(self, request: Request) -> Sent:
        entries = self.folders.get(request.query["id"])
        if entries is None:
            return 404, {"Content-Type": "text/html"}, b"<html><title>Page not found</title></html>"
        lines = [
            ENTRY.format(
                id=identity, name=html.escape(name), kind="drive/folders" if self._is_folder(identity) else "file/d"
            )
            for name, identity in entries
        ]
        page = f'<html><title>weights</title><body><div class="flip-entries">{"".join(lines)}</div></body></html>'
        return 200, {"Content-Type": "text/html; charset=utf-8"}, page.encode()

    def _is_folder(self, identity: str) -> bool:
        return identity in self.folders
