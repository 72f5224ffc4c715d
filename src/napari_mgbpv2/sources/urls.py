"""Addresses on the network, told from paths."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # at least two letters: C:\ is a drive


def is_url(path: str) -> bool:
    """Tell an address such as ``https://...`` or ``s3://...`` from a path."""
    return _URL.match(path) is not None


def without_slash(url: str) -> str:
    """Return an address without slashes at its end: those mean nothing, and two spellings are to be one source."""
    return re.sub(r"(?<=[^/:])/+$", "", url)


def last_part(url: str) -> str:
    """Name what an address leads to: "cells.zarr" for ``https://example.org/data/cells.zarr/``."""
    parts = urlsplit(url)
    return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.netloc
