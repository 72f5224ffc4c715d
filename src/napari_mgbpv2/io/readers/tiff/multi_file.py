"""Detection of files that are parts of one image, which counts as one source."""

from __future__ import annotations

import os
from collections.abc import Iterable

from napari_mgbpv2.errors import SourceError

_SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8")


def parts_of_other_images(paths: Iterable[str]) -> dict[str, str]:
    """Return the files that belong to the image of an earlier file, each with that file.

    A file stands for the image that `open_source` opens of it. Only the description of its first page is read.

    Parameters
    ----------
    paths
        Files and folders, in order.
    """
    firsts: dict[frozenset[str], str] = {}
    parts = {}
    for path in paths:
        files = _files_of(path) if path.lower().endswith(_SUFFIXES) else None
        if files is not None and firsts.setdefault(files, path) != path:
            parts[path] = firsts[files]
    return parts


def _files_of(path: str) -> frozenset[str] | None:
    """Return all files of the first image with planes in a file; None for a single file."""
    from napari_mgbpv2.io.readers.tiff.directories import first_description
    from napari_mgbpv2.io.readers.tiff.ome_xml import parse_ome_xml
    from napari_mgbpv2.io.readers.tiff.pixels import read_metadata
    from napari_mgbpv2.io.readers.tiff.series import file_beside, is_own_block

    text = first_description(path)
    if text is None or not (b"FileName" in text or b"BinaryOnly" in text):
        return None
    try:
        metadata = parse_ome_xml(path, text.rstrip(b"\0"))
        uuid = metadata.uuid
        if metadata.metadata_file:
            metadata = read_metadata(file_beside(path, metadata.metadata_file))
        for number, image in enumerate(metadata.images):
            if any(is_own_block(path, uuid, block) for block in image.blocks):
                names = {block.file for block in image.blocks if block.file is not None}
                files = {os.path.realpath(file_beside(path, name)) for name in names}
                return frozenset({*files, f"image {number}"}) if len(files) > 1 else None
    except SourceError:
        pass  # is reported when it is opened
    return None
