"""Local paths and URLs: distinguish them, expand them, and display them without secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # at least two letters: C:\ is a drive
_USER = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+://)[^/]*@")
# A URL within a text: scheme, user and password, host and path, and the rest up to the next space.
_URL_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+://)(?:[^\s/?#]*@)?([^\s?#\"'<>]*)([?#]\S*)?")
_AFTER_A_QUERY = re.compile(r"[?#]\S*?([\"')\]},;:.]*)")  # punctuation that ends a sentence and not the query
_QUERY_OF_A_PATH = re.compile(r"(url: /[^\s?]*)\?\S*")  # urllib3's form of the target of a request

Destination = Path | str  # of a result; a str is a URL


def is_url(path: str) -> bool:
    """Return whether a path is a URL such as ``https://...`` or ``s3://...``."""
    return _URL.match(path) is not None


def strip_trailing_slashes(url: str) -> str:
    """Return a URL without trailing slashes, so that two spellings identify one source."""
    return re.sub(r"(?<=[^/:])/+$", "", url)


def url_name(url: str) -> str:
    """Return the last part of a URL's path: "cells.zarr" for ``https://example.org/data/cells.zarr/``."""
    host, _, path = public_address(url).rpartition("://")[2].partition("/")
    return unquote(path.rstrip("/").rpartition("/")[2]) or host


def public_address(url: str) -> str:
    """Return scheme, host and path of a URL, without user, password, query and fragment, which may be secret."""
    return _USER.sub(r"\1", url.partition("?")[0].partition("#")[0])


def has_secrets(url: str) -> bool:
    """Return whether a URL has parts that `public_address` leaves out."""
    return public_address(url) != url


def display_path(path: str | os.PathLike[str]) -> str:
    """Return a path unchanged, and of a URL the part that may be displayed, logged and recorded."""
    text = os.fspath(path)
    return public_address(text) if is_url(text) else text


def redact(text: str) -> str:
    """Return a text with each URL in it replaced by its `public_address`."""

    def public(found: re.Match[str]) -> str:
        closing = _AFTER_A_QUERY.fullmatch(found[3] or "")
        return f"{found[1]}{found[2]}{closing[1] if closing else ''}"

    return _QUERY_OF_A_PATH.sub(r"\1", _URL_IN_TEXT.sub(public, text))


def expand_path(path: str) -> str:
    """Replace ``~`` by the user's home folder, and remove ``file://``. Return other paths unchanged.

    An existing file with ``~`` in its name takes precedence.
    """
    if path[:7].lower() == "file://":
        parts = urlsplit(path)
        return url2pathname(parts.path) if parts.netloc in ("", "localhost") else path
    return os.path.expanduser(path) if path.startswith("~") and not os.path.lexists(path) else path


def parse_destination(destination: str | os.PathLike[str]) -> Destination:
    """Return a URL as a str without trailing slashes, and anything else as a Path with ``~`` expanded."""
    text = expand_path(os.fspath(destination))
    return strip_trailing_slashes(text) if isinstance(destination, str) and is_url(text) else Path(text)


def absolute_path(destination: Destination) -> Destination:
    """Return an absolute path, without following links. Return a URL unchanged."""
    return Path(os.path.abspath(destination)) if isinstance(destination, Path) else destination


def escape_undecodable(name: str) -> str:
    r"""Return a file's name as text that every format can store: bytes that are not UTF-8 become ``\xfc``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
