"""A folder served over HTTP, with the ranges that Zarr needs, as badly as a test wants it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class ZarrServer:
    """The files below a folder.

    Attributes
    ----------
    address
        Of the folder.
    status
        Answer to all requests for paths in which ``failing`` matches, for the next ``failures`` of them.
    ranges
        Whether parts of files are given.
    requests
        Path and range of every request so far.
    signed
        Whether a request said who asks.
    """

    def __init__(self, folder: Path) -> None:
        self.ranges = True
        self.status, self.failing, self.failures = 503, "(?!)", 10**9
        self.requests: list[tuple[str, str | None]] = []
        self.signed = False
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self.http.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server: ZarrServer, *arguments: object, **options: object) -> None:
        self.zarr = server
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.zarr.requests.append((self.path, wanted))
        self.zarr.signed |= "Authorization" in self.headers
        if re.search(self.zarr.failing, self.path) and self.zarr.failures > 0:
            self.zarr.failures -= 1
            self.send_error(self.zarr.status)
            return
        file = Path(self.translate_path(self.path))
        part = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "") if self.zarr.ranges else None
        if part is None or not file.is_file():
            super().do_GET()
            return
        content = file.read_bytes()
        first, last = part[1], part[2]
        start = int(first) if first else max(0, len(content) - int(last))  # without a start: the last bytes
        stop = min(int(last) + 1, len(content)) if first and last else len(content)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Last-Modified", self.date_time_string(file.stat().st_mtime))
        self.end_headers()
        self.wfile.write(content[start:stop])

    def do_PROPFIND(self) -> None:
        """Refuse to list a folder."""
        self.send_error(405)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def serving(folder: Path) -> Iterator[ZarrServer]:
    """Serve a folder until the block ends."""
    server = ZarrServer(folder)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
