"""Opened images and the rules that all formats share.

This module owns `ImageSource` (pixels and calibration), `FileArray` (lazy pixels of a file) and the checks of dtype,
axes and memory. It does not read any format: the readers do.
"""

from __future__ import annotations

import math
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.addresses import escape_undecodable, is_url, url_name
from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.formatting import format_bytes
from napari_mgbpv2.imaging.axes import check_axes
from napari_mgbpv2.imaging.axes import guess_axes as axes_of_shape
from napari_mgbpv2.io.fingerprints import identity_of_array, identity_of_files
from napari_mgbpv2.io.units import long_unit as long_unit
from napari_mgbpv2.memory import available_memory

Window = tuple[slice, ...]
Pixels = npt.NDArray[Any]
Reopen = tuple[Callable[..., Any], tuple[Any, ...]]  # a module-level function and its arguments

LEAST_LENGTH, MOST_LENGTH = 1e-100, 1e100  # limits of a pixel size in any unit; values beyond overflow in divisions
_CHUNKS_AT_ONCE = 10  # that zarr decodes concurrently for one window


class ReadingMemory(NamedTuple):
    """Memory in bytes for reading an image, beyond the returned windows.

    Attributes
    ----------
    first
        Peak of the first read, for which all other reads wait.
    steady
        Peak of all later reads together, including data retained between them.
    """

    first: int
    steady: int


class ArrayLike(Protocol):
    """An array that is indexed by a tuple of slices with step 1 and returns data that NumPy can convert."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis in pixels."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    def __getitem__(self, window: Window, /) -> Any:
        """Return the pixels of ``window``."""


@dataclass(frozen=True)
class ImageSource:
    """A lazily opened image and its metadata.

    Attributes
    ----------
    data
        The pixels; nothing is read until it is indexed by a tuple of slices with step 1.
    axes
        One letter for each dimension of ``data``, out of "tzcyxs": "c" are independent channels, "s" are the samples
        of a colour pixel (grey + alpha, RGB or RGBA). "y" and "x" are always present.
    pixel_size
        Size of a pixel in ``units``, for each axis but "c" and "s". 1.0 if unknown; at a lower level of a
        pyramid, multiplied by the downsampling factor of the level.
    units
        NGFF long name ("micrometer", "second", ...) for each axis of ``pixel_size``; None if unknown.
    translation
        Position of the centre of the first pixel in ``units``, for each axis of ``pixel_size``. 0.0 if unknown.
    channel_names
        One name per channel along "c" (a single name without "c"), or None.
    channel_colors
        One "RRGGBB" string per channel like ``channel_names``, or None.
    path
        Absolute path of the file or folder, or scheme, host and path of its address on the network.
    kind
        Format, for messages: "OME-TIFF", "Zarr v3 array", "PNG", ...
    series, level
        Index of the image in its file, and index of the resolution in its pyramid.
    icc_profile
        ICC profile of the colours, if the file has one that matches the pixels.
    notes
        Sentences on metadata that are not carried over, and on changes that were made to read the file.
    """

    data: ArrayLike
    axes: str
    pixel_size: dict[str, float]
    units: dict[str, str | None]
    translation: dict[str, float]
    channel_names: tuple[str, ...] | None
    channel_colors: tuple[str, ...] | None
    path: str
    kind: str
    series: int = 0
    level: int = 0
    icc_profile: bytes | None = None
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> dict[str, Any]:
        """Identify the source, to detect later whether its pixels have changed.

        Returns
        -------
        dict
            JSON-able; equal fingerprints mean an unchanged source. Shape, dtype, series and level, and

            - for a file, ``path`` and ``files``: size and modification time of each of its files. For a Zarr in a
              folder these are the metadata, which are rewritten with it; its chunks are not checked;
            - for a Zarr on the network, ``url`` and ``documents``: hash, ETag and modification time of its metadata;
            - for an array in memory, ``sha256`` of its content. None for large arrays and arrays of other libraries:
              equal fingerprints then do not prove equal pixels.

        Raises
        ------
        SourceError
            The source is missing.
        """
        data = self.data
        origin = data.identity() if isinstance(data, FileArray) else identity_of_array(data)
        return {
            "shape": [int(size) for size in data.shape],
            "dtype": np.dtype(data.dtype).str,
            "series": self.series,
            "level": self.level,
            **origin,
        }

    @property
    def name(self) -> str:
        """File name without its suffixes: "cells" for "cells.ome.zarr"."""
        full = url_name(self.path) if is_url(self.path) else Path(self.path).name
        # a Zarr on the network is a folder, too
        name = full if is_url(self.path) or os.path.isdir(self.path) else Path(full).stem
        for suffix in (".zarr", ".tif", ".tiff", ".nii", ".ome"):  # in this order: .ome precedes .zarr or .tif
            name = name.removesuffix(suffix)
        return escape_undecodable(name or full)


class FileArray(ABC):
    """Lazy pixels of a file: read window by window, in native byte order, from any thread.

    Pickling stores only the call that opens the file again.

    Parameters
    ----------
    path
        The file, for messages.
    shape
        Size along each axis in pixels.
    dtype
        Type of a pixel in the file; ``self.dtype`` is the same type in native byte order.
    reopen
        A module-level function and its arguments that build the same array again.
    nodata
        Value of missing pixels, if any. In float images they are read as NaN; for integers, ``self.nodata`` holds the
        value.

    Raises
    ------
    SourceError
        The image has no pixels, or its pixels are not numbers.
    """

    reads_its_file = True  # on each access; False if decoded pixels are retained in memory

    def __init__(
        self,
        path: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        reopen: Reopen,
        nodata: float | None = None,
    ) -> None:
        self.path = path
        self._opened = _size_and_time(path)
        self.shape = tuple(int(size) for size in shape)
        self.dtype = pixel_dtype(path, dtype)
        if 0 in self.shape:
            raise SourceError(f"{path}: has no pixels, shape {self.shape}; copy or export it again.")
        self._reopen = reopen
        self._fits = False  # whether decoding fits into memory; checked at the first access
        with np.errstate(over="ignore"):  # nodata is written as decimals, which the type may not represent
            self._missing = None if nodata is None or self.dtype.kind != "f" else self.dtype.type(nodata)
        self.nodata = integer_nodata(nodata, self.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of the block that is decoded as a whole, in pixels; by default the whole image."""
        return self.shape

    @property
    def decoding_bytes(self) -> int:
        """Peak memory in bytes for decoding one block: its pixels, and as many bytes of encoded data or buffers."""
        return 2 * math.prod(self.chunk_shape) * self.dtype.itemsize

    def reading_memory(self, window: Sequence[int], readers: int) -> ReadingMemory:
        """Return the memory that reading takes.

        Parameters
        ----------
        window
            Size along each axis, in pixels, of one read.
        readers
            Number of threads that read at the same time.
        """
        return ReadingMemory(0, _chunk_bytes(self.shape, self.chunk_shape, window, self.decoding_bytes, readers))

    def __getitem__(self, window: slice | Window) -> Pixels:
        """Read the pixels of ``window``, slices with step 1; omitted trailing axes are read whole."""
        if not self._fits:
            check_memory(self.path, self.decoding_bytes)
            self._fits = True
        pixels = self._read(_whole_window(window, self.shape))
        if self.reads_its_file:
            self.check_unchanged()
        if self._missing is not None:
            pixels[pixels == self._missing] = np.nan
        return pixels

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Pixels:
        """Read all pixels, for `numpy.asarray`."""
        if copy is False:
            raise ValueError("the pixels are in a file: they cannot be returned without a copy")
        return self[()].astype(dtype or self.dtype, copy=False)

    @property
    def reopen(self) -> Reopen:
        """Function and arguments that build the same array again."""
        return self._reopen

    def __reduce__(self) -> Reopen:
        """Pickle as the call that opens the file again."""
        return self._reopen

    def identity(self) -> dict[str, Any]:
        """Return the file part of `ImageSource.fingerprint`, as a JSON-able dict."""
        return identity_of_files(self.path, self._files())

    def check_unchanged(self) -> None:
        """Refuse pixels of a file that changed since it was opened, which may belong to two images.

        A file that is missing by now was read before, and is accepted.

        Raises
        ------
        SourceError
            The size or modification time of the file has changed.
        """
        now = _size_and_time(self.path)
        if None not in (self._opened, now) and now != self._opened:
            raise SourceError(f"{self.path}: has been changed since it was opened; open or convert it again.")

    def _files(self) -> Iterable[str]:
        """Return the paths of the files that change whenever the pixels change."""
        return [self.path]

    @abstractmethod
    def _read(self, window: Window) -> Pixels:
        """Read pixels into a new array; one slice per axis, 0 <= start <= stop <= size, step 1."""


def _size_and_time(path: str) -> tuple[int, int] | None:
    """Return the size and modification time (ns) of a file; None for folders, addresses and missing files."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _whole_window(window: slice | Window, shape: tuple[int, ...]) -> Window:
    given: tuple[Any, ...] = window if isinstance(window, tuple) else (window,)
    if len(given) > len(shape) or not all(isinstance(part, slice) and part.step in (None, 1) for part in given):
        raise IndexError(f"an image of {len(shape)} axes is indexed by a tuple of slices with step 1, not {window!r}")
    given += (slice(None),) * (len(shape) - len(given))
    bounds = [part.indices(size) for part, size in zip(given, shape, strict=True)]
    return tuple(slice(start, max(start, stop)) for start, stop, _ in bounds)


def check_memory(path: str, count: int) -> None:
    """Refuse to decode pixels that do not fit into memory. A damaged file of a few bytes may claim a huge size.

    Parameters
    ----------
    path
        The file, for messages.
    count
        Peak memory of decoding in bytes, including buffers and the result.

    Raises
    ------
    SourceError
        They exceed the available memory.
    """
    if count > available_memory():
        raise SourceError(
            f"{path}: decoding it takes {format_bytes(count)} at once, more than fits into memory; "
            "save it as a tiled TIFF or as a Zarr, which are read in pieces."
        )


def reading_memory(image: ArrayLike, window: Sequence[int], readers: int) -> ReadingMemory:
    """Return the memory that reading an image takes.

    Parameters
    ----------
    image
        A `FileArray` or any array. For Dask and Zarr arrays, the chunks that are computed or decoded are counted.
    window
        Size along each axis, in pixels, of one read.
    readers
        Number of threads that read at the same time.
    """
    if isinstance(image, FileArray):
        return image.reading_memory(window, readers)
    chunk = getattr(image, "chunksize", None) or getattr(image, "chunks", None)  # of Dask, or of Zarr
    shape = tuple(int(size) for size in image.shape)
    if not isinstance(chunk, tuple) or len(chunk) != len(shape) or not all(isinstance(size, int) for size in chunk):
        return ReadingMemory(0, 0)
    piece = 2 * math.prod(chunk) * np.dtype(image.dtype).itemsize
    return ReadingMemory(0, _chunk_bytes(shape, chunk, window, piece, readers))


def _chunk_bytes(
    shape: Sequence[int], chunk: Sequence[int], window: Sequence[int], chunk_bytes: int, readers: int
) -> int:
    """Return the bytes of all chunks that may be decoded at the same time for windows of a given size."""
    if math.prod(chunk) == 1:  # nothing is decoded
        return 0
    touched = 1
    for size, part, length in zip(shape, chunk, window, strict=True):
        touched *= min(-(-size // part), -(-(length - 1) // part) + 1)
    return readers * min(touched, _CHUNKS_AT_ONCE) * chunk_bytes


class UnsupportedPicture(SourceError):
    """A picture of a known format that no reader supports."""


class UnknownFormat(SourceError):
    """The content does not match any format tried so far."""


def truncated_file_error(path: str, detail: str) -> SourceError:
    """Return the error for a truncated file."""
    return SourceError(f"{path}: the file is cut short: {detail}; copy or download it again.")


def integer_nodata(nodata: float | None, dtype: np.dtype[Any]) -> int | None:
    """Return the value of missing pixels of an integer image; None for other images, and for values no integer has."""
    if nodata is None or dtype.kind not in "ui" or not math.isfinite(nodata) or nodata != int(nodata):
        return None
    return int(nodata)


def pixel_dtype(path: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return ``dtype`` in native byte order.

    Raises
    ------
    SourceError
        The type is not boolean, integer or floating point.
    """
    native = np.dtype(dtype)
    if native.kind not in "buif":
        raise SourceError(
            f"{path}: holds {native} values; an image has boolean, integer or floating-point pixels: convert it first."
        )
    return native.newbyteorder("=")


def check_single_image(path: str, kind: str, series: int, level: int) -> None:
    """Refuse a series or level other than 0, for formats with a single image."""
    pick(path, kind, "series", [None], series)
    pick(path, kind, "level", [None], level)


def pick(path: str, kind: str, what: str, choices: Sequence[Any], index: int) -> Any:
    """Return ``choices[index]``.

    Raises
    ------
    SourceError
        The index is out of range; ``what`` ("series" or "level") is for the message.
    """
    if not 0 <= index < len(choices):
        if not choices:
            raise SourceError(f"{path}: this {kind} does not hold an image; copy or export it again.")
        numbers = "0" if len(choices) == 1 else f"0 to {len(choices) - 1}"
        raise SourceError(f"{path}: this {kind} has no {what} {index}; choose {numbers}.")
    return choices[index]


def guess_axes(path: str, shape: tuple[int, ...]) -> str:
    """Guess the axes of an array without axis names from its shape.

    Raises
    ------
    SourceError
        The array has too few or too many dimensions.
    """
    try:
        return axes_of_shape(shape)
    except ImageError as error:
        raise SourceError(f"{path}: {error}") from error


def axes_with_override(override: str | None, shape: tuple[int, ...], read_axes: Callable[[], str]) -> str:
    """Return the axes of the file, or the override of the user if the file does not define them.

    Parameters
    ----------
    override
        Axes given by the user, or None.
    shape
        Shape of the image.
    read_axes
        Function that reads the axes from the file; raises `SourceError` if the file does not define them.

    Raises
    ------
    SourceError
        The file does not define its axes, and there is no override.
    ImageError
        The override does not match the shape.
    """
    try:
        return read_axes()
    except SourceError:
        if override is None:
            raise
        return check_axes(override, shape)


def is_default_channel_name(name: str) -> bool:
    """Return whether a channel name is a placeholder of writers, such as "Channel 0" or "Channel:0:0"."""
    return re.fullmatch(r"(channel|ch|c)?[\s:_\d]*", name.strip().lower()) is not None


def calibrated_axes(axes: str) -> str:
    """Return the axes that have a pixel size: all but "c" and "s"."""
    return "".join(axis for axis in axes if axis not in "cs")


def source_without_metadata(data: ArrayLike, axes: str, path: str, kind: str) -> ImageSource:
    """Return an image without metadata but its axes; for arrays in memory, ``path`` is a name."""
    return ImageSource(
        data=data,
        axes=axes,
        pixel_size=dict.fromkeys(calibrated_axes(axes), 1.0),
        units=dict.fromkeys(calibrated_axes(axes)),
        translation=dict.fromkeys(calibrated_axes(axes), 0.0),
        channel_names=None,
        channel_colors=None,
        path=path,
        kind=kind,
    )


def with_plausible_lengths(source: ImageSource) -> ImageSource:
    """Remove impossible pixel sizes and positions from an image; its notes list them.

    A pixel size that is not finite, not above 0, or beyond `LEAST_LENGTH` and `MOST_LENGTH` becomes 1.0 without a
    unit. A position that is not finite or beyond `MOST_LENGTH` becomes 0.0.
    """
    sizes, positions = dict(source.pixel_size), dict(source.translation)
    units, notes = dict(source.units), list(source.notes)
    for axis, size in source.pixel_size.items():
        if not LEAST_LENGTH <= size <= MOST_LENGTH:
            sizes[axis], units[axis] = 1.0, None
            notes.append(f"its pixel size along {axis} ({size:g}) cannot be one and is not used")
    for axis, position in source.translation.items():
        if sizes[axis] != source.pixel_size[axis]:
            positions[axis] = 0.0
        elif not abs(position) <= MOST_LENGTH:
            positions[axis] = 0.0
            notes.append(f"its position along {axis} ({position:g}) cannot be one and is not used")
    if len(notes) == len(source.notes):
        return source
    return replace(source, pixel_size=sizes, units=units, translation=positions, notes=tuple(notes))
