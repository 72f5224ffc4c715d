"""Windows of the pixels of a TIFF: mapped where they are contiguous, else decoded segment by segment.

A segment is a tile or a strip. It is read here instead of through tifffile's Zarr store for three reasons: missing
bytes are detected instead of read as zeros; decoded segments are cached, which avoids decoding a page with a single
compressed strip for every window; and small strips have no overhead of a Zarr chunk each.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import tifffile

from napari_mgbpv2.caching import BoundedCache
from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.image import (
    FileArray,
    Pixels,
    ReadingMemory,
    Reopen,
    Window,
    check_memory,
    pick,
    truncated_file_error,
)
from napari_mgbpv2.io.memory_mapped import MappedArray
from napari_mgbpv2.io.oriented import turn_upright
from napari_mgbpv2.io.readers.tiff.colours import in_usual_colours
from napari_mgbpv2.io.readers.tiff.directories import check_regular, first_description, read_directories
from napari_mgbpv2.io.readers.tiff.ome_xml import MOST_XML_BYTES, DamagedXml, OmeMetadata, parse_ome_xml
from napari_mgbpv2.io.readers.tiff.segments import check_size
from napari_mgbpv2.io.readers.tiff.series import (
    OmeFileSet,
    OmeSeries,
    PageFile,
    PageSeries,
    file_beside,
    ome_series,
    uniform_series,
)

# JPEG 2000, WebP and JPEG XL decode to planes of 32 bits.
_CODECS_OF_WIDE_PLANES = (33003, 33004, 33005, 34712, 50001, 50002, 52546)
_CACHE_BYTES = 128 * 2**20  # cached decoded segments per open file; a single larger segment is cached, too


@dataclass(frozen=True)
class OpenedTiff:
    """An open TIFF.

    Attributes
    ----------
    tif
        The file, opened by tifffile.
    images
        The images of the file, each with its levels.
    notes
        Sentences on metadata that are not used.
    """

    tif: tifffile.TiffFile
    images: list[PageSeries]
    notes: tuple[str, ...] = ()


@contextmanager
def opened(path: str) -> Iterator[OpenedTiff]:
    """Open a TIFF, or the companion file of an OME-TIFF.

    Raises
    ------
    SourceError
        The file is damaged or truncated, or one of its parts is outside its folder.
    """
    try:
        companion = is_companion(path)
        with ExitStack() as stack:
            if companion:
                first = _first_part(path)
                yield _open_with_ome(
                    path, stack.enter_context(tifffile.TiffFile(first, is_ome=False)), _read_text(path), None
                )
                return
            directories = read_directories(path)
            tif = stack.enter_context(tifffile.TiffFile(path))
            if not directories.complete and not tif.is_ndpi:  # NDPI has its own kind of links
                raise truncated_file_error(path, "its list of pages leads beyond its end")
            text = tif.ome_metadata if tif.is_ome else None
            if text:
                yield _open_with_ome(path, tif, text, PageFile(path, tif, directories))
                return
            uniform = uniform_series(path, tif, directories)
            yield OpenedTiff(tif, _series_of(tif) if uniform is None else [uniform])
    except SourceError:
        raise
    except Exception as error:  # damage causes errors of many types, also when tags are first read
        raise _unreadable_error(path, error) from error


def _series_of(tif: tifffile.TiffFile) -> list[PageSeries]:
    return [cast(PageSeries, series) for series in tif.series]


def _open_with_ome(path: str, tif: tifffile.TiffFile, text: str | bytes, own: PageFile | None) -> OpenedTiff:
    """Return the images that the OME-XML describes, or those of the plain pages if it does not match any."""
    try:
        metadata = parse_ome_xml(path, text)
    except DamagedXml as error:
        if own is None:
            raise
        return _open_without_ome(
            path, tif, own, f"{str(error).removeprefix(path + ': ')[:200]} Only its pixels are used"
        )
    files = OmeFileSet(path, own, metadata.uuid)
    if metadata.metadata_file is not None:
        companion = file_beside(path, metadata.metadata_file) if metadata.metadata_file else ""
        if not companion or not os.path.isfile(companion):
            raise SourceError(
                f"{path}: is a part of an OME-TIFF whose metadata are in {metadata.metadata_file!r}, "
                "which is not in its folder; put that file there."
            )
        metadata = read_metadata(companion)
        if metadata.metadata_file is not None:
            raise SourceError(f"{companion}: does not hold the metadata that {path} refers to; export the image again.")
    images = ome_series(path, metadata, files)
    fitting = [image for image in images if image.fits]
    if images and len(fitting) < len(images) and (own is None or fitting):
        raise SourceError(f"{path}: its pages and its OME-XML have different sizes; export it again.")
    if fitting and metadata.has_modulo and not any(image.missing or image.is_multifile for image in fitting):
        return OpenedTiff(tif, _series_of(tif))  # tifffile handles split axes
    if fitting:
        notes = [f"{len(files.absent)} of its files are missing"] if files.absent else []
        return OpenedTiff(tif, list(fitting), tuple(notes))
    if own is None or metadata.files - {os.path.basename(path)}:
        absent = ", ".join(files.absent[:3]) or "no planes are listed"
        raise SourceError(f"{path}: all of its planes are missing ({absent}); put all files of the image together.")
    return _open_without_ome(path, tif, own, "its OME-XML does not match its pages: only its pixels are used")


def _open_without_ome(path: str, tif: tifffile.TiffFile, own: PageFile, note: str) -> OpenedTiff:
    """Return the images of a TIFF without using its OME-XML."""
    tif.is_ome = False
    uniform = uniform_series(path, tif, own.directories)
    return OpenedTiff(tif, _series_of(tif) if uniform is None else [uniform], (note,))


def is_companion(path: str) -> bool:
    """Return whether the content of a file is OME-XML, as in companion files of OME-TIFFs."""
    with open(path, "rb") as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \r\n\t")
    return start.startswith((b"<?xml", b"<OME", b"<ome:OME")) and re.search(rb"<(\w+:)?OME\b", start) is not None


def _read_text(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MOST_XML_BYTES + 1)


def read_metadata(path: str) -> OmeMetadata:
    """Read the OME-XML of a companion file or a TIFF."""
    check_regular(path)
    text = _read_text(path) if is_companion(path) else first_description(path)
    if not text:
        raise SourceError(f"{path}: does not hold the OME-XML that another file refers to; export the image again.")
    return parse_ome_xml(path, text.rstrip(b"\0"))


def _first_part(path: str) -> str:
    """Return the first existing file that a companion file names."""
    for name in sorted(read_metadata(path).files):
        if os.path.isfile(part := file_beside(path, name)):
            return part
    raise SourceError(
        f"{path}: none of the files that it names are in its folder; put all files of the image together."
    )


def _unreadable_error(path: str, error: Exception) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return _missing_file_error(path, error)
    return SourceError(
        f"{path}: cannot be read as TIFF ({error}); it is damaged or cut short: copy or export it again."
    )


def _missing_file_error(path: str, error: OSError) -> SourceError:
    return SourceError(f"{path}: cannot be read any more ({error.strerror}); bring the file back.")


MISSING = ("refuse", "blank")


def open_pixels(path: str, file: OpenedTiff, series: int, level: int, missing: str = "refuse") -> FileArray:
    """Return the pixels of one level of one image of an open file, which may be closed afterwards.

    Parameters
    ----------
    path
        The file, or the companion of its files.
    file
        The open file.
    series, level
        Index of the image, and index of its resolution.
    missing
        Handling of announced planes that are missing: "refuse", or "blank", which reads them as zeros, or as NaN in
        float images.

    Raises
    ------
    SourceError
        The series or level does not exist, the dtype is not one of an image, planes are missing, or the file is
        truncated.
    """
    images: PageSeries = pick(path, "TIFF", "series", file.images, series)
    image: PageSeries = pick(path, "image", "level", images.levels, level)
    if (count := missing_planes(image)) and missing != "blank":
        raise SourceError(
            f"{path}: {count:,} of the {len(image):,} planes that its metadata announce are missing: the acquisition "
            'was stopped, or files are missing. Add them, or read blank planes in their position: "--missing '
            'blank", or missing="blank".'
        )
    reopen = (_reopen, (path, series, level, missing))
    nodata = _nodata(image.keyframe, image.dtype)
    offset, pixels = image.dataoffset, None
    if offset is not None and not image.is_multifile and image.transform is None:
        where = image.files[0] if isinstance(image, OmeSeries) else path
        order = image.keyframe.parent.byteorder
        pixels = MappedArray(where, image.shape, np.dtype(order + image.dtype.char), offset, nodata=nodata)
    array = in_usual_colours(pixels or TiffArray(path, image, reopen, nodata), image, reopen)
    return turn_upright(array, image.axes, image.keyframe, reopen)


def missing_planes(image: PageSeries) -> int:
    """Return the number of announced planes that are missing."""
    if isinstance(image, OmeSeries):
        return image.missing
    return sum(page is None for page in getattr(image, "pages", ()))


def _nodata(page: tifffile.TiffPage, dtype: np.dtype[Any]) -> float | None:
    """Return the value of missing pixels; tifffile rejects the most common one, the lowest float."""
    tag = page.tags.get("GDAL_NODATA")
    try:
        value = float("nan" if tag is None else str(tag.value).strip(" \0"))
    except ValueError:
        return None
    limits = np.iinfo(dtype) if dtype.kind in "ui" else np.finfo(np.float64)
    return value if limits.min <= value <= limits.max else None


def _reopen(path: str, series: int, level: int, missing: str) -> FileArray:
    with opened(path) as file:
        return open_pixels(path, file, series, level, missing)


class TiffArray(FileArray):
    """Pixels of one level of one image, decoded segment by segment.

    Parameters
    ----------
    path
        Path of the file.
    image
        The level, of a file that is open during construction; later it is opened for each read.
    reopen
        A module-level function and its arguments that build the same array again.
    nodata
        Value of missing pixels, if any.
    """

    def __init__(self, path: str, image: PageSeries, reopen: Reopen, nodata: float | None = None) -> None:
        super().__init__(path, image.shape, image.dtype, reopen, nodata)
        self._image = image
        self._empty = nodata or 0  # value of segments that a sparse file omits
        self._missing_plane = np.nan if self.dtype.kind == "f" else self._empty
        self._page_lock = threading.Lock()
        self._cache: BoundedCache[tuple[int, int], Pixels] = BoundedCache(_CACHE_BYTES)
        key = image.keyframe
        key.decode  # noqa: B018 - compute the lazy attribute while the file is open
        # All pages have this shape: separate samples, depth, height, width, interleaved samples.
        self._page_shape: tuple[int, ...] = tuple(key.shaped)
        segment = (key.tiledepth, key.tilelength, key.tilewidth) if key.is_tiled else (
            1, min(key.rowsperstrip, key.imagelength), key.imagewidth
        )  # fmt: skip
        self._segment_shape = (1, *map(int, segment), self._page_shape[4])
        self._grid = tuple(-(-size // part) for size, part in zip(self._page_shape, self._segment_shape, strict=True))
        # Decoders return whole segments, even of smaller images; encoded bytes and a copy need additional memory.
        self._segment_bytes = math.prod(self._segment_shape) * self.dtype.itemsize
        self._page_axes = self._count_page_axes()
        self._check_complete(key)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a tile or strip in pixels."""
        outer = self.ndim - self._page_axes
        pairs = zip(self._segment_shape, self._page_shape, strict=True)
        parts = iter([min(part, size) for part, size in pairs if size > 1])
        return (1,) * outer + tuple(next(parts) if size > 1 else 1 for size in self.shape[outer:])

    @property
    def decoding_bytes(self) -> int:
        """Peak memory in bytes for decoding a tile or strip: encoded, decoded and copied."""
        encoded = max((int(count) for count in self._image.keyframe.databytecounts if count), default=0)
        codec = int(self._image.keyframe.compression)
        planes = 4 * math.prod(self._segment_shape) if codec in _CODECS_OF_WIDE_PLANES else 0
        return encoded + max(2 * self._segment_bytes, self._segment_bytes + planes + encoded * (planes > 0))

    def reading_memory(self, window: Sequence[int], readers: int) -> ReadingMemory:
        """Return the memory that decoding and the cache of decoded segments take."""
        count = len(self._image) * math.prod(self._grid)
        kept = min(count * self._segment_bytes, max(_CACHE_BYTES, self._segment_bytes))
        if count == 1:  # other readers wait for it
            return ReadingMemory(self.decoding_bytes, kept)
        return ReadingMemory(0, kept + min(readers, count) * self.decoding_bytes)

    def _files(self) -> Iterable[str]:
        if isinstance(self._image, OmeSeries):
            return [self.path, *self._image.files]
        if not self._image.is_multifile:
            return [self.path]
        pages = [self._image[number] for number in range(len(self._image))]  # missing ones are None
        return [self.path, *(page.parent.filehandle.path for page in pages if page is not None)]

    def _count_page_axes(self) -> int:
        """Return the number of trailing axes within a page; the leading axes number the pages."""
        page = [size for size in self._page_shape if size > 1]
        for count in range(self.ndim + 1):
            inner = [size for size in self.shape[self.ndim - count :] if size > 1]
            if inner == page and int(np.prod(self.shape[: self.ndim - count])) == len(self._image):
                return count
        raise SourceError(
            f"{self.path}: its pages of {self._page_shape} do not make up an image of {self.shape}; save it again."
        )

    def _check_complete(self, page: tifffile.TiffPage) -> None:
        ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=False)]
        present = page.parent.filehandle.size
        if ends and max(ends) > present:
            raise truncated_file_error(self.path, f"its first page ends at byte {max(ends)} and it has {present}")

    def _read(self, window: Window) -> Pixels:
        pixels = np.empty([part.stop - part.start for part in window], self.dtype)
        if pixels.size == 0:
            return pixels
        outer = self.ndim - self._page_axes
        box = self._page_box(window[outer:])
        box_shape = [part.stop - part.start for part in box]
        starts = [part.start for part in window[:outer]]
        for index in np.ndindex(pixels.shape[:outer]):
            position = [start + i for start, i in zip(starts, index, strict=True)]
            number = int(np.ravel_multi_index(position, self.shape[:outer])) if outer else 0
            page = pixels[(*index, ...)]  # "...": a view also where it is a single pixel
            self._read_page(number, box, page.reshape(box_shape))
        return pixels

    def _page_box(self, window: Window) -> Window:
        """Return ``window`` in the five dimensions of a page; both skip dimensions of length one as they like."""
        sizes = self.shape[self.ndim - len(window) :]
        parts = iter([part for part, size in zip(window, sizes, strict=True) if size > 1])
        return tuple(next(parts) if size > 1 else slice(0, 1) for size in self._page_shape)

    def _read_page(self, number: int, box: Window, target: Pixels) -> None:
        """Fill ``target`` with the pixels of page ``number`` in ``box``."""
        page = self._page(number)
        if page is None:
            target[...] = self._missing_plane
            return
        touched = [
            range(part.start // size, -(-part.stop // size))
            for part, size in zip(box, self._segment_shape, strict=True)
        ]
        for position in itertools.product(*touched):
            pixels = self._segment(number, page, position)
            source, destination = [], []
            for part, index, size, length in zip(box, position, self._segment_shape, pixels.shape, strict=True):
                begin = index * size
                low, high = max(part.start, begin), min(part.stop, begin + length)
                source.append(slice(low - begin, high - begin))
                destination.append(slice(low - part.start, high - part.start))
            target[tuple(destination)] = pixels[tuple(source)]

    def _page(self, number: int) -> tifffile.TiffPage | tifffile.TiffFrame | None:
        """Return where the segments of a page are, read from the file when first asked; None if it is missing."""
        file = self._image.keyframe.parent.filehandle
        with self._page_lock:
            was_closed = file.closed
            try:
                file.open()  # does nothing where it is open
                page: tifffile.TiffPage | tifffile.TiffFrame | None = self._image[number]
            except SourceError:
                raise
            except (OSError, ValueError, IndexError, tifffile.TiffFileError) as error:
                raise _unreadable_error(self.path, error) from error
            finally:
                if was_closed:
                    file.close()
        return page

    def _segment(self, number: int, page: tifffile.TiffPage | tifffile.TiffFrame, position: tuple[int, ...]) -> Pixels:
        """Return the decoded segment at a position in the page's grid, cropped to the page, with the page's axes."""
        index = int(np.ravel_multi_index(position, self._grid))
        inside = tuple(
            min(size, whole - i * size)
            for i, size, whole in zip(position, self._segment_shape, self._page_shape, strict=True)
        )
        present = self._locate(page, index)
        if present is None:  # broadcast one value, since a small file may omit huge segments
            return np.broadcast_to(np.asarray(self._empty).astype(self.dtype), inside)
        return self._cache.get((number, index), lambda: self._decode(number, page, index, inside, *present))

    def _decode(
        self,
        number: int,
        page: tifffile.TiffPage | tifffile.TiffFrame,
        index: int,
        inside: tuple[int, ...],
        offset: int,
        count: int,
    ) -> Pixels:
        check_memory(self.path, self.decoding_bytes)
        encoded = self._encoded(page, offset, count)
        try:
            _, _, *sides, samples = self._segment_shape
            check_size(
                self._image.keyframe.compression if page.keyframe is None else page.keyframe.compression,
                encoded,
                (sides[0], sides[1]),
                (inside[2], inside[3]),
                samples,
            )
        except ValueError as error:
            raise SourceError(
                f"{self.path}: segment {index} of page {number} {error}; the file is damaged: copy or export it again."
            ) from error
        tables = {"jpegtables": page.jpegtables, "jpegheader": self._image.keyframe.jpegheader}
        given = {name: table for name, table in tables.items() if table is not None}
        try:
            decoded = page.decode(encoded, index, **given)[0]
        except Exception as error:  # codecs raise errors of many types
            raise SourceError(
                f"{self.path}: segment {index} of page {number} cannot be decoded ({error}); "
                "the file is damaged: copy or export it again."
            ) from error
        pixels: Pixels = np.asarray(decoded)[np.newaxis][tuple(slice(size) for size in inside)]
        if pixels.shape != inside:
            raise SourceError(
                f"{self.path}: segment {index} of page {number} decodes to {pixels.shape}, not {inside}; "
                "the file is damaged: copy or export it again."
            )
        if self._image.transform is not None:
            pixels = self._image.transform(pixels)
        return pixels.astype(self.dtype)  # a copy, which does not retain the padding of the tile or the encoded bytes

    def _locate(self, page: tifffile.TiffPage | tifffile.TiffFrame, index: int) -> tuple[int, int] | None:
        """Return the offset and byte count of a segment, or None if the file omits it."""
        if index >= len(page.dataoffsets) or index >= len(page.databytecounts):
            lists = min(len(page.dataoffsets), len(page.databytecounts))
            raise truncated_file_error(
                self.path, f"a page of {math.prod(self._grid):,} tiles or strips lists {lists:,} of them"
            )
        try:
            offset, count = int(page.dataoffsets[index]), int(page.databytecounts[index])
        except (TypeError, ValueError, OverflowError) as error:  # not numbers
            raise _unreadable_error(page.parent.filehandle.path, error) from error
        return (offset, count) if offset and count else None

    def _encoded(self, page: tifffile.TiffPage | tifffile.TiffFrame, offset: int, count: int) -> bytes:
        path = page.parent.filehandle.path  # an OME-TIFF may have several files
        try:
            with open(path, "rb") as file:  # a separate handle does not need a lock
                file.seek(offset)
                encoded = file.read(min(count, os.fstat(file.fileno()).st_size))  # a damaged count may be huge
        except OSError as error:
            raise _missing_file_error(path, error) from error
        except (ValueError, OverflowError) as error:  # impossible values
            raise _unreadable_error(path, error) from error
        if len(encoded) < count:
            raise truncated_file_error(path, f"a segment needs {count} bytes and {len(encoded)} are left")
        return encoded
