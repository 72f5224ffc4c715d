"""Windows of the pixels of a TIFF: mapped where they are contiguous, else decoded segment by segment.

A segment is a tile or a strip. It is read here rather than through tifffile's Zarr store for three reasons: missing
bytes are noticed instead of read as zeros, a decoded segment is kept, so that neighbouring windows of a page with a
single compressed strip do not decode it again and again, and small strips cost no Zarr chunk each.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tifffile

from napari_mgbpv2.caching import BoundedCache
from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.sources.image import FileArray, Pixels, Reopen, Window, cut_short, pick
from napari_mgbpv2.sources.mapped import MappedArray
from napari_mgbpv2.sources.tiff_colours import in_usual_colours

_CACHE_BYTES = 128 * 2**20  # of decoded segments for each open file; a single larger segment is kept, too


@contextmanager
def opened(path: str, series: int) -> Iterator[tuple[tifffile.TiffFile, tifffile.TiffPageSeries]]:
    """Open a TIFF and pick one of its images, with all levels.

    Raises
    ------
    SourceError
        The file is damaged or cut short, or has no such series.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            if not _page_chain_ends(tif):  # tifffile would go on with the pages before the cut
                raise cut_short(path, "its list of pages leads beyond its end")
            yield tif, pick(path, "TIFF", "series", list(tif.series), series)
    except SourceError:
        raise
    except Exception as error:  # damage shows as errors of many classes, also when tags are first looked at
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return _gone(path, error)
    return SourceError(
        f"{path}: cannot be read as TIFF ({error}); it is damaged or cut short: copy or export it again."
    )


def _gone(path: str, error: OSError) -> SourceError:
    return SourceError(f"{path}: cannot be read any more ({error.strerror}); bring the file back.")


def _page_chain_ends(tif: tifffile.TiffFile) -> bool:
    last_link = tif.pages.next_page_offset
    if last_link is None or tif.is_ndpi:  # NDPI has links of its own kind
        return True
    tif.filehandle.seek(last_link)
    link = tif.filehandle.read(tif.tiff.offsetsize)
    return len(link) == tif.tiff.offsetsize and not any(link)


def open_pixels(path: str, tif: tifffile.TiffFile, images: tifffile.TiffPageSeries, level: int) -> FileArray:
    """Return the pixels of one level of one image of the open ``tif``, which may be closed afterwards.

    Raises
    ------
    SourceError
        There is no such level, its dtype is none of an image, or the file is cut short.
    """
    image: tifffile.TiffPageSeries = pick(path, "image", "level", images.levels, level)
    series = next(i for i, other in enumerate(tif.series) if other is images)
    reopen = (_reopen, (path, series, level))
    nodata = _nodata(image.keyframe, image.dtype)
    offset, pixels = image.dataoffset, None
    if offset is not None and not image.is_multifile and image.transform is None:
        pixels = MappedArray(path, image.shape, np.dtype(tif.byteorder + image.dtype.char), offset, nodata=nodata)
    return in_usual_colours(pixels or TiffArray(path, image, reopen, nodata), image, reopen)


def _nodata(page: tifffile.TiffPage, dtype: np.dtype[Any]) -> float | None:
    """Return the value of missing pixels; tifffile refuses the one that is used most, the lowest float."""
    tag = page.tags.get("GDAL_NODATA")
    try:
        value = float("nan" if tag is None else str(tag.value).strip(" \0"))
    except ValueError:
        return None
    limits = np.iinfo(dtype) if dtype.kind in "ui" else np.finfo(np.float64)
    return value if limits.min <= value <= limits.max else None


def _reopen(path: str, series: int, level: int) -> FileArray:
    with opened(path, series) as (tif, images):
        return open_pixels(path, tif, images, level)


class TiffArray(FileArray):
    """Pixels of one level of one image, decoded segment by segment.

    Parameters
    ----------
    path
        The file.
    image
        The level, of a file that is open now; later, it is opened for each read.
    reopen, nodata
        As `FileArray` has them.
    """

    def __init__(self, path: str, image: tifffile.TiffPageSeries, reopen: Reopen, nodata: float | None = None) -> None:
        super().__init__(path, image.shape, image.dtype, reopen, nodata)
        self._image = image
        self._empty = nodata or 0  # what a sparse file leaves out
        self._page_lock = threading.Lock()
        self._cache: BoundedCache[tuple[int, int], Pixels] = BoundedCache(_CACHE_BYTES)
        key = image.keyframe
        key.decode  # noqa: B018 - made when first asked for, from tags that may still have to be read
        # All pages of an image are alike: separate samples, depth, height, width, interleaved samples.
        self._page_shape: tuple[int, ...] = tuple(key.shaped)
        segment = (key.tiledepth, key.tilelength, key.tilewidth) if key.is_tiled else (
            1, min(key.rowsperstrip, key.imagelength), key.imagewidth
        )  # fmt: skip
        self._segment_shape = (1, *map(int, segment), self._page_shape[4])
        self._grid = tuple(-(-size // part) for size, part in zip(self._page_shape, self._segment_shape, strict=True))
        self._page_axes = self._count_page_axes()
        self._check_complete(key)

    @property
    def piece_shape(self) -> tuple[int, ...]:
        """Pixels of a tile or a strip."""
        outer = self.ndim - self._page_axes
        pairs = zip(self._segment_shape, self._page_shape, strict=True)
        parts = iter([min(part, size) for part, size in pairs if size > 1])
        return (1,) * outer + tuple(next(parts) if size > 1 else 1 for size in self.shape[outer:])

    def _files(self) -> Iterable[str]:
        if not self._image.is_multifile:
            return [self.path]
        pages = [self._image[number] for number in range(len(self._image))]  # missing ones are None
        return [self.path, *(page.parent.filehandle.path for page in pages if page is not None)]

    def _count_page_axes(self) -> int:
        """Count the trailing axes of the image that lie within a page; those before number the pages."""
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
            raise cut_short(self.path, f"its first page ends at byte {max(ends)} and it has {present}")

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
        touched = [
            range(part.start // size, -(-part.stop // size))
            for part, size in zip(box, self._segment_shape, strict=True)
        ]
        for place in itertools.product(*touched):
            pixels = self._segment(number, page, place)
            source, destination = [], []
            for part, index, size, length in zip(box, place, self._segment_shape, pixels.shape, strict=True):
                begin = index * size
                low, high = max(part.start, begin), min(part.stop, begin + length)
                source.append(slice(low - begin, high - begin))
                destination.append(slice(low - part.start, high - part.start))
            target[tuple(destination)] = pixels[tuple(source)]

    def _page(self, number: int) -> tifffile.TiffPage | tifffile.TiffFrame:
        """Return where the segments of a page are; tifffile reads that from the file when first asked."""
        file = self._image.keyframe.parent.filehandle
        with self._page_lock:
            was_closed = file.closed
            try:
                file.open()  # does nothing where it is open
                page = self._image[number]
            except (OSError, ValueError, IndexError, tifffile.TiffFileError) as error:
                raise _unreadable(self.path, error) from error
            finally:
                if was_closed:
                    file.close()
        if page is None:  # OME-XML speaks of a file or page that is not there
            raise cut_short(self.path, f"page {number} is missing")
        return page

    def _segment(self, number: int, page: tifffile.TiffPage | tifffile.TiffFrame, place: tuple[int, ...]) -> Pixels:
        """Return the decoded segment at ``place`` in the page's grid, cut to the page, in the page's dimensions."""
        index = int(np.ravel_multi_index(place, self._grid))
        inside = tuple(
            min(size, whole - i * size)
            for i, size, whole in zip(place, self._segment_shape, self._page_shape, strict=True)
        )
        present = self._place(page, index)
        if present is None:  # one value for all its pixels: a small file may leave out huge segments
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
        encoded = self._encoded(page, offset, count)
        tables = {"jpegtables": page.jpegtables, "jpegheader": self._image.keyframe.jpegheader}
        given = {name: table for name, table in tables.items() if table is not None}
        try:
            decoded = page.decode(encoded, index, **given)[0]
        except Exception as error:  # each codec has its own
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
        return pixels.astype(self.dtype)  # a copy: it holds neither the padding of a tile nor the encoded bytes

    def _place(self, page: tifffile.TiffPage | tifffile.TiffFrame, index: int) -> tuple[int, int] | None:
        """Return where a segment begins and how many bytes it has, or None where the file leaves it out."""
        if index >= len(page.dataoffsets) or index >= len(page.databytecounts):
            return None
        try:
            offset, count = int(page.dataoffsets[index]), int(page.databytecounts[index])
        except (TypeError, ValueError, OverflowError) as error:  # they are no numbers
            raise _unreadable(page.parent.filehandle.path, error) from error
        return (offset, count) if offset and count else None

    def _encoded(self, page: tifffile.TiffPage | tifffile.TiffFrame, offset: int, count: int) -> bytes:
        path = page.parent.filehandle.path  # one of several, with OME-TIFF
        try:
            with open(path, "rb") as file:  # a handle of its own needs no lock
                file.seek(offset)
                encoded = file.read(min(count, os.fstat(file.fileno()).st_size))  # a damaged count may be huge
        except OSError as error:
            raise _gone(path, error) from error
        except (ValueError, OverflowError) as error:  # they are impossible
            raise _unreadable(path, error) from error
        if len(encoded) < count:
            raise cut_short(path, f"a segment needs {count} bytes and {len(encoded)} are left")
        return encoded
