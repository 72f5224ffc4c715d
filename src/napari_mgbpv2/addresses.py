"""Paths and addresses on the network: told from each other, expanded, and shown without what is secret."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # at least two letters: C:\ is a drive
_USER = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+://)[^/]*@")
# An address within a text: scheme, user and password, host and path, and what follows them up to the next space.
_URL_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+://)(?:[^\s/?#]*@)?([^\s?#\"'<>]*)([?#]\S*)?")
_AFTER_A_QUERY = re.compile(r"[?#]\S*?([\"')\]},;:.]*)")  # punctuation that closes a sentence, not the query
_QUERY_OF_A_PATH = re.compile(r"(url: /[^\s?]*)\?\S*")  # as urllib3 names the target of a request

Destination = Path | str  # where a result goes; a str is an address


def is_url(path: str) -> bool:
    """Tell an address such as ``https://...`` or ``s3://...`` from a path."""
    return _URL.match(path) is not None


def strip_trailing_slashes(url: str) -> str:
    """Return an address without slashes at its end: those mean nothing, and two spellings are to be one source."""
    return re.sub(r"(?<=[^/:])/+$", "", url)


def url_name(url: str) -> str:
    """Name what an address leads to: "cells.zarr" for ``https://example.org/data/cells.zarr/``."""
    host, _, path = public_address(url).rpartition("://")[2].partition("/")
    return unquote(path.rstrip("/").rpartition("/")[2]) or host


def public_address(url: str) -> str:
    """Return scheme, host and path of an address: without user, password, query and fragment, which may be secret."""
    return _USER.sub(r"\1", url.partition("?")[0].partition("#")[0])


def has_secrets(url: str) -> bool:
    """Tell whether `public_address` leaves anything out."""
    return public_address(url) != url


def display_path(path: str | os.PathLike[str]) -> str:
    """Return a path as it is, and of an address what may be shown, logged and recorded."""
    text = os.fspath(path)
    return public_address(text) if is_url(text) else text


def redact(text: str) -> str:
    """Return a text with all addresses in it as `public_address` gives them."""

    def public(found: re.Match[str]) -> str:
        closing = _AFTER_A_QUERY.fullmatch(found[3] or "")
        return f"{found[1]}{found[2]}{closing[1] if closing else ''}"

    return _QUERY_OF_A_PATH.sub(r"\1", _URL_IN_TEXT.sub(public, text))


def expand_path(path: str) -> str:
    """Return a path with ``~`` as the user's home folder and ``file://`` taken off; anything else as it is.

    A file that is called so, ``~`` and all, comes first.
    """
    if path[:7].lower() == "file://":
        parts = urlsplit(path)
        return url2pathname(parts.path) if parts.netloc in ("", "localhost") else path
    return os.path.expanduser(path) if path.startswith("~") and not os.path.lexists(path) else path


def parse_destination(place: str | os.PathLike[str]) -> Destination:
    """Return an address as a str, without slashes at its end, and anything else as a path; ``~`` is expanded."""
    text = expand_path(os.fspath(place))
    return strip_trailing_slashes(text) if isinstance(place, str) and is_url(text) else Path(text)


def absolute_path(destination: Destination) -> Destination:
    """Return a path as an absolute one, without following links; an address as it is."""
    return Path(os.path.abspath(destination)) if isinstance(destination, Path) else destination


def escape_undecodable(name: str) -> str:
    r"""Return a file's name as text that every format holds: bytes that are no UTF-8 are written as ``\xfc``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
