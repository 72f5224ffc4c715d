"""Open images of any supported format as lazy pixels with axes, pixel size, units, position and channel names.

The format is detected by the content of the file, never by its name. Only metadata are read until the pixels are
indexed. Every problem with a file raises a `SourceError` that names the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from napari_mgbpv2.addresses import expand_path, is_url, strip_trailing_slashes
from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.cf import missing_value
from napari_mgbpv2.io.image import (
    ArrayLike,
    FileArray,
    ImageSource,
    UnknownFormat,
    UnsupportedPicture,
    source_without_metadata,
    with_plausible_lengths,
)
from napari_mgbpv2.io.overrides import with_metadata
from napari_mgbpv2.io.readers.discovery import check_file, find_sources
from napari_mgbpv2.io.units import long_unit

__all__ = [
    "ArrayLike",
    "FileArray",
    "ImageSource",
    "as_array",
    "find_missing_value",
    "find_sources",
    "long_unit",
    "open_source",
    "source_without_metadata",
    "with_metadata",
]

_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF, little and big endian
_NPY_MAGIC = b"\x93NUMPY"
# The header size of NIfTI-1 or NIfTI-2 in either byte order, or gzip.
_NIFTI_MAGICS = (b"\x5c\1\0\0", b"\0\0\1\x5c", b"\x1c\2\0\0", b"\0\0\2\x1c", b"\x1f\x8b")
_XML_MAGICS = (b"<?xml", b"<OME", b"<ome:OME", b"\xef\xbb\xbf<")
_ZIP_MAGICS = (b"PK\3\4", b"PK\5\6")


def open_source(
    path: str | os.PathLike[str],
    *,
    series: int = 0,
    level: int = 0,
    axes: str | None = None,
    pixel_size: float | Mapping[str, float] | None = None,
    unit: str | Mapping[str, str] | None = None,
    missing: str = "refuse",
) -> ImageSource:
    """Open an image lazily.

    Parameters
    ----------
    path
        A TIFF (BigTIFF, OME-TIFF, ImageJ, pyramids), a Zarr v2 or v3 array or group or an OME-Zarr (a folder, a .zip
        of one, or an address, https:// or s3://), a .npy file, a picture (PNG, JPEG, WebP, BMP, ...), a NIfTI,
        or any format for which a bioio reader is installed.
    series
        Index of the image in a file with several, or of the frame in an animation.
    level
        Index of the resolution in a pyramid; 0 is the full resolution.
    axes
        Override for the axes of the file: one letter per axis, out of "tzcyxs".
    pixel_size
        Override for the pixel size of y and x, or a mapping from axis to pixel size.
    unit
        Override for the unit, such as "micrometer" or "s", or a mapping from axis to unit.
    missing
        Handling of planes that the metadata of an OME-TIFF announce but that are missing, for instance after a stopped
        acquisition: "refuse", or "blank", which reads them as zeros, or as NaN in float images.

    Returns
    -------
    ImageSource
        Its ``data`` may be indexed from several threads at once. Its pickle stores the path and opens the file again.

    Raises
    ------
    SourceError
        The file is missing, empty, damaged, truncated or of an unknown format; the series or level does not exist; the
        network request fails; or the package that reads the format is not installed. Damaged pixels raise the error
        when they are read.
    ImageError
        The axes do not match the image, a pixel size is not above 0, a unit is unknown or does not suit its axis, or an
        axis does not exist.
    """
    path = expand_path(os.fspath(path))
    source = with_plausible_lengths(
        _open(strip_trailing_slashes(path) if is_url(path) else os.path.abspath(path), series, level, axes, missing)
    )
    return with_metadata(replace(source, series=series, level=level), axes=axes, pixel_size=pixel_size, unit=unit)


def _open(path: str, series: int, level: int, axes_override: str | None, missing: str) -> ImageSource:
    # Each format's library is imported only when a file needs it.
    start = b"" if is_url(path) or os.path.isdir(path) else _first_bytes(path)
    if not start or start.startswith(_ZIP_MAGICS):
        from napari_mgbpv2.io.readers.zarr.reader import open_zarr

        return open_zarr(path, series, level, axes_override)
    if start.startswith(_TIFF_MAGICS) or (start.startswith(_XML_MAGICS) and _is_ome_companion(path)):
        from napari_mgbpv2.io.readers.tiff.reader import open_tiff

        return open_tiff(path, series, level, axes_override, missing)
    if start.startswith(_NPY_MAGIC):
        from napari_mgbpv2.io.readers.npy import open_npy

        return open_npy(path, series, level, axes_override)
    if start.startswith(_NIFTI_MAGICS):
        from napari_mgbpv2.io.readers.nifti import open_nifti

        return open_nifti(path, series, level, axes_override)
    from napari_mgbpv2.io.readers.pictures import open_picture

    try:
        return open_picture(path, series, level)
    except UnsupportedPicture:
        raise
    except (
        SourceError
    ) as refused:  # Pillow may mistake other formats for a damaged bitmap (DIB), which lacks a magic number
        from napari_mgbpv2.io.readers.bioimage import open_bioimage

        try:
            return open_bioimage(path, series, level, axes_override)
        except UnknownFormat:
            raise refused from None


def _is_ome_companion(path: str) -> bool:
    from napari_mgbpv2.io.readers.tiff.pixels import is_companion

    return is_companion(path)


def as_array(store: object) -> Any:
    """Return the full-resolution array of an image in an open Zarr store.

    Parameters
    ----------
    store
        A Zarr store, such as ``tifffile.imread(path, aszarr=True)``; a `zarr.Group` that holds a multiscale or a
        single array; or a `zarr.Array`, which is returned unchanged.

    Returns
    -------
    zarr.Array
        A lazy array; the store must stay open while it is read.

    Raises
    ------
    SourceError
        The store is of another type, does not hold exactly one image, or its metadata are damaged.
    """
    from napari_mgbpv2.io.readers.zarr.reader import open_store

    return open_store(store)


def find_missing_value(array: Any) -> float | None:
    """Return the value of missing pixels from the attributes of an open Zarr or xarray array, or None."""
    if hasattr(getattr(array, "metadata", None), "zarr_format"):
        from napari_mgbpv2.io.readers.zarr.pixels import read_nodata

        return read_nodata(array)
    attributes = getattr(array, "attrs", None)
    return missing_value(attributes) if isinstance(attributes, Mapping) else None


def _first_bytes(path: str) -> bytes:
    check_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such file or folder; check the path.") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions.") from error
    if not start:
        raise SourceError(f"{path}: the file is empty; copy or export it again.")
    return start
