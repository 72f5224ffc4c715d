"""Fingerprints of sources: small JSON documents that are compared when a conversion is resumed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from napari_mgbpv2.addresses import display_path, escape_undecodable
from napari_mgbpv2.errors import SourceError

_HASHED_BYTES = 256 * 2**20  # largest array in memory that is hashed; more would take seconds


def identity_of_files(path: str, files: Iterable[str]) -> dict[str, Any]:
    """Identify files by their paths, sizes and modification times, without reading them.

    Parameters
    ----------
    path
        Path of the source.
    files
        Paths of the files of the source; if there are many, of those that change with it.

    Raises
    ------
    SourceError
        A file is missing.
    """
    found = {}
    for file in sorted(set(files)):
        try:
            status = os.stat(file)
        except OSError as error:
            raise SourceError(f"{file}: cannot be read any more ({error.strerror}); bring the file back.") from error
        found[file] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    if not found:
        raise SourceError(f"{path}: has gone; bring it back.")
    return {"path": path, "files": found}


def identity_of_array(array: Any) -> dict[str, Any]:
    """Identify an array in memory by the hash of its content.

    ``sha256`` is None for NumPy arrays over 256 MiB and for other arrays, which are then identified by shape and type
    only.
    """
    if not isinstance(array, np.ndarray) or array.nbytes > _HASHED_BYTES:
        return {"sha256": None}
    return {"sha256": hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()}


def recorded_source(path: str) -> str:
    """Return the location of an image for records: a file name, or scheme, host and path of an address."""
    return (
        escape_undecodable(display_path(path).rstrip("/" + os.sep).rpartition(os.sep)[2])
        if "://" not in path
        else display_path(path)
    )


def without_folders(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the user's folders from a fingerprint; names below the folder of the source are kept.

    Parameters
    ----------
    identity
        Result of `ImageSource.fingerprint`, or of this function, which is returned unchanged.
    """
    if "path" not in identity:
        return dict(identity)
    path = str(identity["path"])
    above = os.path.dirname(path)
    files: dict[str, Any] = {}
    for file, status in dict(identity.get("files", {})).items():
        below = above and file.startswith(above.rstrip(os.sep) + os.sep)
        name = file[len(above.rstrip(os.sep)) + 1 :] if below else file
        name = escape_undecodable(os.path.basename(name) if os.path.isabs(name) else name)
        number = 1
        while (numbered := name if number == 1 else f"{name} ({number})") in files:
            number += 1
        files[numbered] = status
    return {**identity, "path": recorded_source(path), "files": files}
