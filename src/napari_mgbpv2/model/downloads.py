"""Downloads into the user's cache folder: resumed after a broken connection, and checked before they are used.

pooch stores and transfers the files. This module adds that an interrupted download resumes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from napari_mgbpv2.addresses import public_address, redact
from napari_mgbpv2.errors import ModelError

CACHE_VARIABLE = "MGBPV2_CACHE"
TIMEOUT_SECONDS = 30  # for a server that does not answer
_MAX_CONNECTIONS = 50  # per file, as long as each makes progress
_CHUNK_BYTES = 1 << 16  # an incomplete chunk is discarded
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416  # HTTP status codes


def cache_folder() -> Path:
    """Return the folder of downloads: ``MGBPV2_CACHE`` if set, else the user's cache folder for this package."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    import pooch  # type: ignore[import-untyped, unused-ignore]

    return Path(pooch.os_cache("napari-mgbpv2"))


def download(url: str, path: Path, *, check: Callable[[Path], None], sha256: str | None = None) -> Path:
    """Download a file, unless it exists.

    Parameters
    ----------
    url
        URL of the file.
    path
        Destination. Its folder is created.
    check
        Called with the complete file before it gets its name. It raises `ModelError` for a wrong file, which is then
        removed.
    sha256
        Hash of an existing file. A file with another hash is downloaded again.

    Raises
    ------
    ModelError
        The server sent a web page, or ``check`` rejected the file.
    OSError
        The network, the server or the disk failed. The next call resumes the download.
    """
    import pooch

    def fetch(_: str, complete: str, registry: Any) -> None:
        _receive(url, partial, registry)
        try:
            check(partial)
        except ModelError:
            _remove_partial(partial)
            raise
        os.replace(partial, complete)
        _remove_partial(partial)

    partial = path.with_name(f".{path.name}.partial")
    registry = pooch.create(
        path=path.parent, base_url="", registry={path.name: sha256}, urls={path.name: public_address(url)}
    )
    return Path(registry.fetch(path.name, downloader=fetch))


@dataclass(frozen=True)
class _FileVersion:
    """Version of a file on a server. Parts of different versions do not fit together.

    Attributes
    ----------
    url
        URL without secrets.
    mark
        ETag or modification date of the content; empty if unknown.
    size
        Size of the whole file in bytes; None if unknown.
    """

    url: str
    mark: str
    size: int | None

    @classmethod
    def from_response(cls, url: str, response: Any) -> _FileVersion:
        headers = response.headers
        whole = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
        size = whole[1] if whole else headers.get("Content-Length")
        return cls(
            public_address(url), headers.get("ETag") or headers.get("Last-Modified") or "", int(size) if size else None
        )

    @classmethod
    def read(cls, partial: Path) -> _FileVersion | None:
        """Return the recorded version of a partial file; None without a record."""
        try:
            return cls(**json.loads(_version_path(partial).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


def _redirect_target(response: Any) -> str:
    """Return the URL that a server redirects to, in lower case."""
    return str(urljoin(response.url, response.headers.get("Location", ""))).lower()


def _version_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _remove_partial(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _version_path(partial).unlink(missing_ok=True)


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _receive(url: str, partial: Path, registry: Any) -> None:
    """Complete a partial file with as many connections as needed. Raise the error of a connection without progress."""
    for connection in range(_MAX_CONNECTIONS):
        before = _size(partial)
        try:
            _connect(url, partial, registry)
            return
        except ModelError:
            _remove_partial(partial)
            raise
        except OSError:
            if _size(partial) == 0:
                _remove_partial(partial)
            if _size(partial) == before or connection == _MAX_CONNECTIONS - 1:
                raise


def _connect(url: str, partial: Path, registry: Any) -> None:
    """Receive the rest of a file, or all of it if the server cannot resume the same version."""
    import pooch

    known = _FileVersion.read(partial)
    if known is None or known.url != public_address(url) or _size(partial) > (known.size or sys.maxsize):
        _remove_partial(partial)
        known = None
    start = _size(partial)
    if known is not None and start == known.size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})

    with partial.open("ab") as file:

        def begin(response: Any, **_: Any) -> None:
            """Check the response before its content is received."""
            if response.is_redirect and url.startswith("https:") and _redirect_target(response).startswith("http:"):
                raise ModelError(f"{public_address(url)}: the server redirects to an unencrypted address.")
            if response.is_redirect or (not response.ok and response.status_code != _RANGE_NOT_SATISFIABLE):
                return  # pooch follows it, or raises an error
            version = _FileVersion.from_response(url, response)
            from_there = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if response.status_code == _PARTIAL_CONTENT and from_there and version == known:
                return
            file.truncate(0)
            if response.status_code in (_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE):
                raise OSError("the file on the server has changed")
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise ModelError(
                    f"{public_address(url)}: the server sent a web page and not a file; the address may have changed."
                )
            _version_path(partial).write_text(json.dumps(asdict(version)))

        fetch = pooch.HTTPDownloader(
            progressbar=sys.stderr.isatty(),
            chunk_size=_CHUNK_BYTES,
            timeout=TIMEOUT_SECONDS,
            headers=headers,
            hooks={"response": begin},
        )
        try:
            fetch(url, file, registry)
        except OSError as error:
            if redact(str(error)) == str(error):
                raise
            raise OSError(redact(str(error))) from None  # The address may contain secrets.
    known = _FileVersion.read(partial)
    if known is not None and known.size not in (None, _size(partial)):
        raise OSError(f"{_size(partial)} of {known.size} bytes received")
