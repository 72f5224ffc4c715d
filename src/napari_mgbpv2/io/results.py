"""Which files this program has written itself, by what they say of it and never by their names."""

from __future__ import annotations

import json
import os
from typing import BinaryIO

MARKER = "napari_mgbpv2"  # the attribute of a Zarr, the namespace of an OME annotation, the keyword of a PNG's text

_LARGEST_DOCUMENT = 2**26  # bytes of a Zarr's metadata that are looked at
_TIFF, _PNG = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), b"\x89PNG\r\n\x1a\n"
_TEXTS, _MOST_CHUNKS = (b"tEXt", b"zTXt", b"iTXt"), 1000


def is_result(path: str) -> bool:
    """Return whether there is an image that this program has made: complete, unfinished, or a picture of one.

    Parameters
    ----------
    path
        Of a Zarr or a file; of what cannot be read, the answer is no.
    """
    try:
        if os.path.isdir(path):
            return _is_marked_zarr(path)
        with open(path, "rb") as file:
            start = file.read(8)
            if start == _PNG:
                return _is_marked_png(file)
    except (OSError, ValueError, RecursionError):
        return False
    return start.startswith(_TIFF) and _is_marked_tiff(path)


def _is_marked_zarr(folder: str) -> bool:
    for name, inner in (("zarr.json", "attributes"), (".zattrs", None)):
        try:
            with open(os.path.join(folder, name), "rb") as file:
                document = json.loads(file.read(_LARGEST_DOCUMENT))
        except FileNotFoundError:
            continue
        attributes = document.get(inner) if inner and isinstance(document, dict) else document
        return isinstance(attributes, dict) and isinstance(attributes.get(MARKER), dict)
    return False


def _is_marked_png(file: BinaryIO) -> bool:
    """Look at the texts before the pixels."""
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IDAT":
            break
        keyword = file.read(len(MARKER) + 1) if head[4:] in _TEXTS else b""
        if keyword == MARKER.encode() + b"\0":
            return True
        file.seek(int.from_bytes(head[:4], "big") + 4 - len(keyword), os.SEEK_CUR)
    return False


def _is_marked_tiff(path: str) -> bool:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            description = tif.pages.first.description
    except Exception:  # a damaged file fails in many ways, and is said so when it is opened
        return False
    return f'Namespace="{MARKER}"' in description
