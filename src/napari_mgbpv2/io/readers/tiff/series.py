"""Images of a TIFF as series of lazily read pages, for files with any number of pages."""

from __future__ import annotations

import json
import math
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tifffile

from napari_mgbpv2.caching import BoundedCache
from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.image import truncated_file_error
from napari_mgbpv2.io.readers.tiff.directories import Directories, read_directories
from napari_mgbpv2.io.readers.tiff.ome_xml import OmeImage, OmeMetadata, PlaneBlock

_CACHED_PAGE_BYTES = 32 * 2**20  # of cached page descriptions, not of pixels
_SEGMENT_BYTES = 100  # per tile or strip in a page description
_MOST_LEVELS = 64
# Flavours whose pages are not a plain stack; tifffile handles their structure.
_OTHER_FLAVOURS = (
    "lsm", "mmstack", "ome", "imagej", "ndtiff", "fluoview", "stk", "sis", "svs", "scn", "qpi", "ndpi", "bif", "avs",
    "eer", "philips", "scanimage", "nih", "mdgel",
)  # fmt: skip


class PageSeries(Protocol):
    """One resolution of one image; the common interface of tifffile's series and those of this module."""

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    kind: str
    name: str
    keyframe: tifffile.TiffPage
    transform: Any
    is_multifile: bool
    levels: Any

    @property
    def dataoffset(self) -> int | None:
        """Offset of the pixels if they are contiguous in memory order, else None."""

    def __len__(self) -> int:
        """Return the number of pages."""

    def __getitem__(self, number: int, /) -> Any:
        """Page ``number``; None if it is missing."""


@dataclass(frozen=True)
class _CachedPage:
    page: tifffile.TiffPage
    nbytes: int


class PageFile:
    """A TIFF whose pages are read on demand; the file is open only during a read.

    Parameters
    ----------
    path
        Path of the file.
    tif
        The open file, if any.
    directories
        Its directories, if already read.
    """

    def __init__(self, path: str, tif: tifffile.TiffFile | None = None, directories: Directories | None = None) -> None:
        self.path = path
        self.directories = read_directories(path) if directories is None else directories
        self._tif = tif
        self._lock = threading.RLock()
        self._pages: BoundedCache[tuple[int, int], _CachedPage] = BoundedCache(_CACHED_PAGE_BYTES)

    def __len__(self) -> int:
        """Return the number of pages, without SubIFDs."""
        return int(self.directories.offsets.size)

    def page(self, ifd: int, level: int = 0) -> tifffile.TiffPage | None:
        """Return a page or one of its reduced levels; None if the level does not exist."""
        if level == 0:
            return self._read(ifd, 0, int(self.directories.offsets[ifd]))
        full = self.page(ifd)
        offsets = () if full is None or not full.subifds else full.subifds
        offset = int(offsets[level - 1]) if level <= len(offsets) else 0
        return self._read(ifd, level, offset) if offset >= 8 else None

    def _read(self, ifd: int, level: int, offset: int) -> tifffile.TiffPage:
        return self._pages.get((ifd, level), lambda: self._read_page(ifd, level, offset)).page

    def _read_page(self, ifd: int, level: int, offset: int) -> _CachedPage:
        with self._lock:
            if self._tif is None:
                with tifffile.TiffFile(self.path, is_ome=False) as self._tif:
                    pass
            file = self._tif.filehandle
            was_closed = file.closed
            try:
                file.open()  # does nothing if it is open
                file.seek(offset)
                page = tifffile.TiffPage(self._tif, (ifd, level) if level else ifd)
                page.decode  # noqa: B018 - compute the lazy attribute while the file is open
                page.jpegtables  # noqa: B018
            finally:
                if was_closed:
                    file.close()
        return _CachedPage(page, 10_000 + _SEGMENT_BYTES * len(page.dataoffsets))


class _LazySeries(ABC):
    """A series with only its first page read.

    Parameters
    ----------
    keyframe
        First existing page.
    axes, shape
        All axes and their lengths. Axes of length one are dropped, except y and x.
    kind, name
        Kind and name of the series, in the terms of tifffile.
    pages
        Number of pages, including missing ones.
    """

    def __init__(
        self, keyframe: tifffile.TiffPage, axes: str, shape: Sequence[int], kind: str, name: str, pages: int
    ) -> None:
        stay = [i for i, (axis, size) in enumerate(zip(axes, shape, strict=True)) if size != 1 or axis in "YX"]
        self.axes = "".join(axes[i] for i in stay)
        self.shape = tuple(int(shape[i]) for i in stay)
        self.keyframe, self.kind, self.name = keyframe, kind, name
        if keyframe.dtype is None:
            raise ValueError("pixels of an unknown type")
        self.dtype = np.dtype(keyframe.dtype)
        self.transform = None
        self.is_multifile = False
        self.levels: list[Any] = [self]
        self._page_count = pages

    def __len__(self) -> int:
        """Return the number of pages."""
        return self._page_count

    def __getitem__(self, number: int, /) -> tifffile.TiffPage | None:
        """Read the description of a page; None if it is missing.

        Raises
        ------
        SourceError
            The page differs from the first one in size, type or layout.
        """
        page = self._page(number)
        if page is not None and page is not self.keyframe and _layout(page) != _layout(self.keyframe):
            raise SourceError(
                f"{page.parent.filehandle.path}: page {page.index} does not belong to the image: it has another size, "
                "type or layout than the first one; save the image again."
            )
        return page

    @property
    def dataoffset(self) -> int | None:
        """Offset of the pixels if they are contiguous in memory order, else None."""
        return None

    @abstractmethod
    def _page(self, number: int) -> tifffile.TiffPage | None:
        """Read the description of a page."""


def _layout(page: tifffile.TiffPage) -> tuple[Any, ...]:
    """Return the properties that pages of one image share. Compression and byte order may differ per page."""
    segment = (page.tiledepth, page.tilelength, page.tilewidth) if page.is_tiled else (
        min(page.rowsperstrip, page.imagelength),
    )  # fmt: skip
    kinds = (page.bitspersample, page.sampleformat, page.photometric, page.planarconfig, tuple(page.extrasamples))
    return tuple(page.shaped), str(page.dtype), page.is_tiled, segment, kinds


def _contiguous(page: tifffile.TiffPage, file: PageFile, ifds: Sequence[int] | np.ndarray[Any, Any]) -> int | None:
    """Return the offset of uncompressed pages that are contiguous in a file; None for all others."""
    starts = file.directories.data_offsets
    if starts is None or not page.is_contiguous or page.dtype is None:
        return None
    offsets = starts[np.asarray(ifds)]
    size = math.prod(page.shape) * np.dtype(page.dtype).itemsize
    return int(offsets[0]) if (np.diff(offsets) == size).all() else None


class UniformSeries(_LazySeries):
    """All pages of a file as one image: a plain stack, or an array written by tifffile."""

    def __init__(self, file: PageFile, keyframe: tifffile.TiffPage, axes: str, shape: Sequence[int], kind: str) -> None:
        super().__init__(keyframe, axes, shape, kind, "", len(file))
        self._file = file

    @property
    def dataoffset(self) -> int | None:
        """Offset of the pixels if they are contiguous in memory order, else None."""
        return _contiguous(self.keyframe, self._file, range(len(self)))

    def _page(self, number: int) -> tifffile.TiffPage | None:
        return self.keyframe if number == 0 else self._file.page(number)


def uniform_series(path: str, tif: tifffile.TiffFile, directories: Directories) -> UniformSeries | None:
    """Return all pages of a file as one image; None if they differ, or if tifffile must handle the flavour.

    Parameters
    ----------
    path, tif
        The open file.
    directories
        Directories of the file.
    """
    count = int(directories.offsets.size)
    if count < 2 or not directories.uniform or any(getattr(tif, f"is_{flavour}") for flavour in _OTHER_FLAVOURS):
        return None
    page = tif.pages.first
    if not page.shape or page.is_geotiff or page.subifds:
        return None
    file, kind, axes, shape = PageFile(path, tif, directories), "generic", "I" + page.axes, (count, *page.shape)
    if page.shaped_description is not None:
        kind = "shaped"
        try:
            described = json.loads(page.shaped_description)
            shape = tuple(int(size) for size in described["shape"])
        except (ValueError, TypeError, KeyError):
            return None
        if math.prod(shape) != count * math.prod(page.shape) or described.get("truncated"):
            return None
        axes = described.get("axes") or "Q" * (len(shape) - len(page.shape)) + page.axes
        if not isinstance(axes, str) or len(axes) != len(shape) or shape[-len(page.shape) :] != page.shape:
            return None
    return UniformSeries(file, page, axes, shape, kind)


class OmeFileSet:
    """The files of an OME-TIFF, all in one folder.

    Parameters
    ----------
    path
        The opened file: a TIFF, or a companion with only the metadata.
    own
        Pages of the opened file, if it is a TIFF.
    uuid
        UUID of the opened file.
    """

    def __init__(self, path: str, own: PageFile | None, uuid: str | None) -> None:
        self._path, self._own, self._uuid = path, own, uuid
        self._files: dict[str, PageFile | None] = {}

    @property
    def absent(self) -> list[str]:
        """Names of the files that were requested and are missing."""
        return [name for name, file in self._files.items() if file is None]

    @property
    def pages(self) -> int:
        """Number of pages of all requested files."""
        return sum(len(file) for file in (self._own, *self._files.values()) if file is not None)

    def is_own(self, block: PlaneBlock) -> bool:
        """Return whether planes are in the opened file."""
        return self._own is not None and is_own_block(self._path, self._uuid, block)

    def of(self, block: PlaneBlock) -> PageFile | None:
        """Return the file of a block of planes; None if it is missing.

        Raises
        ------
        SourceError
            The file is outside the folder, or not a TIFF.
        """
        if self.is_own(block):
            return self._own
        if not block.file:
            raise SourceError(f"{self._path}: does not name the file of its planes; export it again.")
        if block.file not in self._files:
            path = file_beside(self._path, block.file)
            self._files[block.file] = PageFile(path) if os.path.lexists(path) else None
        return self._files[block.file]


def is_own_block(path: str, uuid: str | None, block: PlaneBlock) -> bool:
    """Return whether planes are in a file of this path and UUID; the UUID still matches if the file was renamed."""
    if block.file is None or (uuid and block.uuid == uuid):
        return True
    return block.file.lower() == os.path.basename(path).lower()


def file_beside(path: str, name: str) -> str:
    """Return the path of a file that another file names as one of its parts.

    Parameters
    ----------
    path
        The file that contains the name.
    name
        The name.

    Raises
    ------
    SourceError
        The named file is not in the folder of the other file or below.
    """
    folder = os.path.dirname(os.path.abspath(path))
    found = os.path.normpath(os.path.join(folder, name)) if "\0" not in name else ""
    allowed = {os.path.realpath(folder), os.path.dirname(os.path.realpath(path))}
    if (
        not found
        or os.path.commonpath([folder, found]) != folder
        or not any(os.path.commonpath([place, os.path.realpath(found)]) == place for place in allowed)
    ):
        raise SourceError(
            f"{path}: names {name[:200]!r} as a part of itself, which is outside its folder and is not opened; "
            "put all files of the image into one folder."
        )
    return found


class OmeSeries(_LazySeries):
    """An image of an OME-TIFF, whose planes may be in several files and may be missing.

    Attributes
    ----------
    described
        The image in the OME-XML.
    missing
        Number of announced planes that are missing.
    """

    def __init__(self, image: OmeImage, where: dict[int, tuple[PageFile, int]], level: int = 0) -> None:
        file, ifd = where[min(where)]
        keyframe = file.page(ifd, level)
        if keyframe is None:
            raise truncated_file_error(file.path, f"page {ifd} has no level {level}")
        axes = image.page_axes + ("SYX" if keyframe.planarconfig == 2 and image.samples > 1 else "YXS")
        height, width = (image.height, image.width) if level == 0 else (keyframe.imagelength, keyframe.imagewidth)
        sizes = dict(zip(image.page_axes, image.page_shape, strict=True))
        sizes |= {"Y": height, "X": width, "S": image.samples}
        super().__init__(keyframe, axes, [sizes[axis] for axis in axes], "ome", image.name, image.planes)
        self.described = image
        self.missing = image.planes - len(where)
        self.is_multifile = len({file.path for file, _ in where.values()}) > 1
        self._where, self._level = where, level
        if level == 0:
            count = len(keyframe.subifds or ())
            if count > _MOST_LEVELS:
                raise SourceError(f"{file.path}: has {count:,} levels, which is impossible; export it again.")
            self.levels += [OmeSeries(image, where, number + 1) for number in range(count)]

    @property
    def fits(self) -> bool:
        """True if the pages have the size given in the OME-XML."""
        page = [size for axis, size in zip(self.axes, self.shape, strict=True) if axis in "YXS"]
        return list(self.keyframe.shape) == page

    @property
    def files(self) -> list[str]:
        """Paths of all files with planes of the image."""
        return sorted({file.path for file, _ in self._where.values()})

    @property
    def dataoffset(self) -> int | None:
        """Offset of the pixels if they are contiguous in memory order, else None."""
        if self.missing or self.is_multifile or self._level:
            return None
        file = self._where[0][0]
        return _contiguous(self.keyframe, file, [self._where[number][1] for number in range(len(self))])

    def _page(self, number: int) -> tifffile.TiffPage | None:
        if number not in self._where:
            return None
        file, ifd = self._where[number]
        return file.page(ifd, self._level)


def ome_series(path: str, metadata: OmeMetadata, files: OmeFileSet) -> list[OmeSeries]:
    """Return the images of an OME-TIFF that have planes, those in the opened file first.

    Raises
    ------
    SourceError
        A file is outside the folder or damaged, or the metadata list planes repeatedly.
    """
    found = []
    for image in metadata.images:
        where = _planes(path, image, files)
        if where:
            own = any(files.is_own(block) for block in image.blocks)
            found.append((not own, OmeSeries(image, where)))
    return [series for _, series in sorted(found, key=lambda each: each[0])]  # the sort is stable


def _planes(path: str, image: OmeImage, files: OmeFileSet) -> dict[int, tuple[PageFile, int]]:
    """Return the file and IFD of each existing plane, by plane number."""
    where: dict[int, tuple[PageFile, int]] = {}
    listed = 0
    for block in image.blocks:
        if any(first >= size for first, size in zip(block.first, image.page_shape, strict=True)):
            continue  # ImageJ keeps the entries of cropped planes
        begin = 0
        for first, size in zip(block.first, image.page_shape, strict=True):
            begin = begin * size + first
        file = files.of(block)
        if file is None:
            continue
        present = max(0, min(len(file) - block.ifd, image.planes - begin))
        count = present if block.count is None else min(block.count, present)
        listed += count
        if listed > 1000 + 10 * files.pages:
            raise SourceError(f"{path}: its OME-XML lists the same planes repeatedly; export it again.")
        where.update((begin + i, (file, block.ifd + i)) for i in range(count))
    return where
