"""Validation of OME-Zarr metadata in a folder, for paths with any characters."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

_DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def validate_folder(folder: Path) -> None:
    """Validate the metadata of a Zarr in a folder against the OME-Zarr specification.

    The validator opens paths through fsspec, which interprets ``[x]``, ``*`` and ``::``. It therefore receives a copy
    of the metadata of the root and of the nodes below it in memory.

    Parameters
    ----------
    folder
        Folder of the Zarr.

    Raises
    ------
    ValueError
        The metadata are not valid OME-Zarr metadata.
    OSError
        The metadata cannot be read.
    """
    nodes = [folder, *(entry for entry in folder.iterdir() if entry.is_dir())]
    documents = {
        f"{node.relative_to(folder).as_posix()}/{name}".removeprefix("./"): (node / name).read_bytes()
        for node in nodes
        for name in _DOCUMENTS
        if (node / name).is_file()
    }
    validate_documents(documents)


def validate_documents(documents: Mapping[str, bytes]) -> None:
    """Validate the metadata documents of a Zarr, by key, against the OME-Zarr specification.

    Raises
    ------
    ValueError
        The metadata are not valid OME-Zarr metadata.
    """
    import fsspec  # type: ignore[import-untyped, unused-ignore]
    from yaozarrs import validate_zarr_store

    address = f"memory://mgbpv2-{uuid.uuid4().hex}"
    copy = fsspec.get_mapper(address)
    try:
        copy.setitems(dict(documents))
        validate_zarr_store(address)
    finally:
        copy.clear()
