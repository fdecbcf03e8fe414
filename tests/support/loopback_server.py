"""An HTTP server on 127.0.0.1 whose transfers can be made to stall."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class LoopbackServer:
    """`with` it: serves until the block ends.

    url           where
    pause_after   bytes after which a body's transfer stalls until `resume` is set; `paused` tells that it does
    """

    def __init__(self, handler: type[LoopbackHandler]) -> None:
        self.pause_after: int | None = None
        self.paused = threading.Event()
        self.resume = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"served": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.resume.set()
        self._server.shutdown()
        self._server.server_close()


class LoopbackHandler(BaseHTTPRequestHandler):
    """Handler of a `LoopbackServer`, which is its `served`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def send(self, body: bytes) -> None:
        """The body, in parts if it is to stall."""
        server, pause = self.served, self.served.pause_after
        if pause is not None and len(body) > pause:
            self.send_part(body[:pause])
            self.wfile.flush()
            server.paused.set()
            server.resume.wait(60)
            body = body[pause:]
        self.send_part(body)

    def send_part(self, body: bytes) -> None:
        self.wfile.write(body)
