"""Addresses on the network, told from paths."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # at least two letters: C:\ is a drive

Destination = Path | str  # where a result goes; a str is an address


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


def as_destination(place: str | os.PathLike[str]) -> Destination:
    """Return an address as a str, without slashes at its end, and anything else as a path."""
    return without_slash(place) if isinstance(place, str) and is_url(place) else Path(place)


def absolute(destination: Destination) -> Destination:
    """Return a path as an absolute one, without following links; an address as it is."""
    return Path(os.path.abspath(destination)) if isinstance(destination, Path) else destination
