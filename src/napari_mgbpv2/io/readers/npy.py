"""NumPy's own files, mapped."""

from __future__ import annotations

import math
import os
from typing import IO, Any

import numpy as np

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.image import (
    ImageSource,
    axes_with_override,
    check_single_image,
    guess_axes,
    source_without_metadata,
)
from napari_mgbpv2.io.memory_mapped import MappedArray

_MOST_HEADER_BYTES = 10_000  # NumPy's own limit, which it checks after it has read the whole header
_MOST_BYTES = 2**63 - 1


def open_npy(path: str, series: int, level: int, axes_override: str | None) -> ImageSource:
    """Open a .npy file; its axes are told by its dimensions, or where these do not tell, as they are said.

    Raises
    ------
    SourceError
        It is cut short, its header is damaged, or it holds something else than numbers.
    """
    check_single_image(path, "NumPy file", series, level)
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = _read_header(path, file)
            offset, size = file.tell(), os.fstat(file.fileno()).st_size
    except SourceError:  # which is an OSError
        raise
    except OSError as error:
        raise SourceError(f"{path}: cannot be read as a NumPy array ({error.strerror or error}).") from error
    if dtype.hasobject:
        raise _unreadable(path, "it holds Python objects: save plain numbers with numpy.save")
    needed = offset + math.prod(shape) * dtype.itemsize
    if needed > size:
        announced = " x ".join(f"{length:,}" for length in shape)
        raise _unreadable(
            path, f"its header announces {announced} values, {needed:,} bytes, and it has {size:,}: it is cut short"
        )
    order = "F" if fortran and len(shape) > 1 else "C"
    axes = axes_with_override(axes_override, shape, lambda: guess_axes(path, shape))
    data = MappedArray(path, shape, dtype, offset, order)
    return source_without_metadata(data, axes, path, "NumPy array")


def _read_header(path: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether the order is Fortran's, and type; the file is then at its first value."""
    damaged = "its header is damaged: save it again with numpy.save"
    try:
        version = np.lib.format.read_magic(file)
    except ValueError as error:
        raise _unreadable(path, damaged) from error
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise _unreadable(path, f"it has version {version[0]}.{version[1]} of the format, and known are 1.0 to 3.0")
    start, length_bytes = file.tell(), 2 if version == (1, 0) else 4
    length = int.from_bytes(file.read(length_bytes), "little")
    if length > _MOST_HEADER_BYTES:
        raise _unreadable(path, f"its header has {length:,} bytes, and at most {_MOST_HEADER_BYTES:,} are read")
    file.seek(start)
    # Version 3 is version 2 with names of fields in UTF-8; fields are refused anyway.
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file)
    except Exception as error:  # a damaged header fails as any damaged Python expression may
        raise _unreadable(path, damaged) from error
    lengths = [length for length in shape if length != 0]
    if (
        any(type(length) is not int or length < 0 for length in shape)
        or math.prod(lengths) * dtype.itemsize > _MOST_BYTES
        or dtype.subdtype is not None
    ):
        raise _unreadable(path, damaged)
    return shape, fortran, dtype


def _unreadable(path: str, reason: str) -> SourceError:
    return SourceError(f"{path}: cannot be read as a NumPy array: {reason}.")
