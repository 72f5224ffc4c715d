"""Files from the web, in the user's cache folder: gone on with where a connection broke, checked before they count.

pooch keeps the files and transfers them; what is added is that a broken download is not begun anew.
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
TIMEOUT_SECONDS = 30  # for a server that says nothing
_MAX_CONNECTIONS = 50  # for one file, as long as each brings something
_CHUNK_BYTES = 1 << 16  # bytes; of one that is not complete, nothing is kept
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416  # status codes


def cache_folder() -> Path:
    """Folder of downloaded files: named by ``MGBPV2_CACHE``, else the user's cache folder for this package."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    import pooch  # type: ignore[import-untyped, unused-ignore]

    return Path(pooch.os_cache("napari-mgbpv2"))


def download(url: str, path: Path, *, check: Callable[[Path], None], sha256: str | None = None) -> Path:
    """Bring a file from the web if it is not there already.

    Parameters
    ----------
    url
        Where it is.
    path
        Where it is to be; its folder is made.
    check
        Looks at the complete file before it gets its name, and raises `ModelError` if it is the wrong one: then it is
        removed.
    sha256
        Of a file that may be there: one with another hash is brought again.

    Raises
    ------
    ModelError
        What came is a web page, or is refused by ``check``.
    OSError
        The network, the server or the disk failed; what has come is kept, and the next call goes on from there.
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
    """What a server says about a file; a part of one does not go with a part of another.

    Attributes
    ----------
    url, mark
        Where it is, without what may be secret, and the server's mark for this content of it; empty where there is
        none.
    size
        Bytes of the whole file; None where the server does not say.
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
        """Version that an unfinished file belongs to, None where nobody has written it down."""
        try:
            return cls(**json.loads(_version_path(partial).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


def _redirect_target(response: Any) -> str:
    """Return where a server leads."""
    return str(urljoin(response.url, response.headers.get("Location", ""))).lower()


def _version_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _remove_partial(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _version_path(partial).unlink(missing_ok=True)


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _receive(url: str, partial: Path, registry: Any) -> None:
    """Complete an unfinished file, by as many connections as it takes; without progress, the error of the last."""
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
    """Receive what is missing of a file, or all of it where the server does not go on with the same one."""
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
            """Look at the answer before its content is received."""
            if response.is_redirect and url.startswith("https:") and _redirect_target(response).startswith("http:"):
                raise ModelError(f"{public_address(url)}: the server leads to where nothing is encrypted.")
            if response.is_redirect or (not response.ok and response.status_code != _RANGE_NOT_SATISFIABLE):
                return  # to follow, or to be raised
            version = _FileVersion.from_response(url, response)
            from_there = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if response.status_code == _PARTIAL_CONTENT and from_there and version == known:
                return
            file.truncate(0)
            if response.status_code in (_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE):
                raise OSError("the file on the server has changed")
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise ModelError(
                    f"{public_address(url)}: what came is a web page, not a file; the address may have changed."
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
            raise OSError(redact(str(error))) from None  # what the address holds may be secret
    known = _FileVersion.read(partial)
    if known is not None and known.size not in (None, _size(partial)):
        raise OSError(f"{_size(partial)} of {known.size} bytes came")
