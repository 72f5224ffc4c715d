"""Reading back how an OME-TIFF of ours came to be."""

from __future__ import annotations

import json
import os
from typing import Any
from xml.etree import ElementTree

from napari_mgbpv2.io.writers.ome_tiff.metadata import NAMESPACE


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return what `write_ome_tiff` was given as the provenance of a file; None of anything else, or nothing."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            xml = file.ome_metadata
        root = ElementTree.fromstring(xml or "")
    except (OSError, ValueError, ElementTree.ParseError):
        return None
    for annotation in root.iterfind(".//{*}MapAnnotation"):
        if annotation.get("Namespace") == NAMESPACE:
            return {str(entry.get("K")): _value(entry.text or "") for entry in annotation.iterfind(".//{*}M")}
    return None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # a string is written as it is
        return text
