"""A web server on this machine, as well or badly behaved as a test wants it, and a cache for what comes from it."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class FileServer:
    """Gives one file at any address.

    Attributes
    ----------
    content
        The file.
    status
        Answer to every request; 200 also stands for 206 where a part is asked for.
    kind
        Content-Type.
    ranges, marks
        Whether it gives parts, and an ETag for what the file is now.
    most_bytes, broken
        The next so many connections break after so many bytes.
    requests
        Range of every request so far, None where the whole file was asked for.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.status, self.kind = content, 200, "application/octet-stream"
        self.ranges = self.marks = True
        self.most_bytes = self.broken = 0
        self.requests: list[str | None] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers["Range"]
                server.requests.append(wanted)
                total, start = len(server.content), 0
                part = server.ranges and server.status == 200 and re.fullmatch(r"bytes=(\d+)-", wanted or "")
                if part:
                    start = int(part[1])
                    self.send_response(206 if start < total else 416)
                    self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
                else:
                    self.send_response(server.status)
                if server.marks:
                    self.send_header("ETag", hashlib.sha256(server.content).hexdigest())
                self.send_header("Content-Type", server.kind)
                content = server.content[start:]
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if server.broken:
                    server.broken -= 1
                    content = content[: server.most_bytes]
                    self.close_connection = True
                with suppress(ConnectionError):  # the client has seen enough
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a folder stand for the user's cache, and no proxy between this machine and itself."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MGBPV2_CACHE", str(folder))
    return folder


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    """Serve a file on a thread for the length of a block."""
    server = FileServer(content)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
