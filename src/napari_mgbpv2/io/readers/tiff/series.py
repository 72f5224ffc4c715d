"""The images of a TIFF as series of pages that are read when they are wanted, whatever their number."""

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

_KEPT_PAGE_BYTES = 32 * 2**20  # of the descriptions of pages, not of their pixels
_SEGMENT_BYTES = 100  # of a tile or strip in the description of a page
_MOST_LEVELS = 64
# Flavours whose pages are more than a plain stack; tifffile knows their structure.
_OTHER_FLAVOURS = (
    "lsm", "mmstack", "ome", "imagej", "ndtiff", "fluoview", "stk", "sis", "svs", "scn", "qpi", "ndpi", "bif", "avs",
    "eer", "philips", "scanimage", "nih", "mdgel",
)  # fmt: skip


class PageSeries(Protocol):
    """One resolution of one image: what tifffile's series and those below have in common."""

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
        """Where the pixels begin if all of them follow each other as they are in memory."""

    def __len__(self) -> int:
        """Number of pages."""

    def __getitem__(self, number: int, /) -> Any:
        """Page ``number``; None if it is missing."""


@dataclass(frozen=True)
class _KeptPage:
    page: tifffile.TiffPage
    nbytes: int


class PageFile:
    """A TIFF whose pages are read one by one; the file is open only while that is done.

    Parameters
    ----------
    path
        The file.
    tif
        The same, if it is open already.
    directories
        Its directories, if they are known already.
    """

    def __init__(self, path: str, tif: tifffile.TiffFile | None = None, directories: Directories | None = None) -> None:
        self.path = path
        self.directories = read_directories(path) if directories is None else directories
        self._tif = tif
        self._lock = threading.RLock()
        self._pages: BoundedCache[tuple[int, int], _KeptPage] = BoundedCache(_KEPT_PAGE_BYTES)

    def __len__(self) -> int:
        """Number of pages, without SubIFDs."""
        return int(self.directories.offsets.size)

    def page(self, ifd: int, level: int = 0) -> tifffile.TiffPage | None:
        """Return a page, or a reduced one of it; None if the page has no such level."""
        if level == 0:
            return self._read(ifd, 0, int(self.directories.offsets[ifd]))
        full = self.page(ifd)
        offsets = () if full is None or not full.subifds else full.subifds
        offset = int(offsets[level - 1]) if level <= len(offsets) else 0
        return self._read(ifd, level, offset) if offset >= 8 else None

    def _read(self, ifd: int, level: int, offset: int) -> tifffile.TiffPage:
        return self._pages.get((ifd, level), lambda: self._make(ifd, level, offset)).page

    def _make(self, ifd: int, level: int, offset: int) -> _KeptPage:
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
                page.decode  # noqa: B018 - made when it is first wanted, from tags that may still have to be read
                page.jpegtables  # noqa: B018
            finally:
                if was_closed:
                    file.close()
        return _KeptPage(page, 10_000 + _SEGMENT_BYTES * len(page.dataoffsets))


class _LazySeries(ABC):
    """A series of which only the first page has been read.

    Parameters
    ----------
    keyframe
        Its first page that is there.
    axes, shape
        Of all axes, those of length one included; only y and x stay if they have length one.
    kind, name
        As tifffile has them.
    pages
        Number of pages, those that are missing included.
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
        """Number of pages."""
        return self._page_count

    def __getitem__(self, number: int, /) -> tifffile.TiffPage | None:
        """Read the description of a page; None if it is missing.

        Raises
        ------
        SourceError
            It is of another kind than the first one.
        """
        page = self._page(number)
        if page is not None and page is not self.keyframe and _layout(page) != _layout(self.keyframe):
            raise SourceError(
                f"{page.parent.filehandle.path}: page {page.index} is no page of the image: it has another size, type "
                "or layout than the first one; save the image again."
            )
        return page

    @property
    def dataoffset(self) -> int | None:
        """Where the pixels begin if all of them follow each other as they are in memory."""
        return None

    @abstractmethod
    def _page(self, number: int) -> tifffile.TiffPage | None:
        """Read the description of a page."""


def _layout(page: tifffile.TiffPage) -> tuple[Any, ...]:
    """What pages of one image have in common; each is decoded by its own compression and byte order."""
    segment = (page.tiledepth, page.tilelength, page.tilewidth) if page.is_tiled else (
        min(page.rowsperstrip, page.imagelength),
    )  # fmt: skip
    kinds = (page.bitspersample, page.sampleformat, page.photometric, page.planarconfig, tuple(page.extrasamples))
    return tuple(page.shaped), str(page.dtype), page.is_tiled, segment, kinds


def _contiguous(page: tifffile.TiffPage, file: PageFile, ifds: Sequence[int] | np.ndarray[Any, Any]) -> int | None:
    """Return where pages begin that follow each other in a file without gaps, uncompressed; else None."""
    starts = file.directories.data_offsets
    if starts is None or not page.is_contiguous or page.dtype is None:
        return None
    wanted = starts[np.asarray(ifds)]
    size = math.prod(page.shape) * np.dtype(page.dtype).itemsize
    return int(wanted[0]) if (np.diff(wanted) == size).all() else None


class UniformSeries(_LazySeries):
    """All pages of a file as one image: a plain stack, or an array as tifffile writes it."""

    def __init__(self, file: PageFile, keyframe: tifffile.TiffPage, axes: str, shape: Sequence[int], kind: str) -> None:
        super().__init__(keyframe, axes, shape, kind, "", len(file))
        self._file = file

    @property
    def dataoffset(self) -> int | None:
        """Where the pixels begin if all of them follow each other as they are in memory."""
        return _contiguous(self.keyframe, self._file, range(len(self)))

    def _page(self, number: int) -> tifffile.TiffPage | None:
        return self.keyframe if number == 0 else self._file.page(number)


def uniform_series(path: str, tif: tifffile.TiffFile, directories: Directories) -> UniformSeries | None:
    """Return all pages of a file as one image; None if they are not alike, or of a flavour that tifffile knows better.

    Parameters
    ----------
    path, tif
        The file, open.
    directories
        Its directories.
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
    """The files over which the images of an OME-TIFF are spread, all in one folder.

    Parameters
    ----------
    path
        The file that is opened: a TIFF, or a companion with the metadata alone.
    own
        Its pages, if it is a TIFF.
    uuid
        Of that file.
    """

    def __init__(self, path: str, own: PageFile | None, uuid: str | None) -> None:
        self._path, self._own, self._uuid = path, own, uuid
        self._files: dict[str, PageFile | None] = {}

    @property
    def absent(self) -> list[str]:
        """Names of the files that were looked for and are not there."""
        return [name for name, file in self._files.items() if file is None]

    @property
    def pages(self) -> int:
        """Number of pages of all files that were looked for."""
        return sum(len(file) for file in (self._own, *self._files.values()) if file is not None)

    def is_own(self, block: PlaneBlock) -> bool:
        """Return whether planes are in the file that is opened."""
        return self._own is not None and is_own_block(self._path, self._uuid, block)

    def of(self, block: PlaneBlock) -> PageFile | None:
        """Return the file of some planes; None if it is not there.

        Raises
        ------
        SourceError
            It lies outside the folder, or is no TIFF.
        """
        if self.is_own(block):
            return self._own
        if not block.file:
            raise SourceError(f"{self._path}: does not say in which file its planes are; export it again.")
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
    """Return the path of a file that another one names as a part of itself.

    Parameters
    ----------
    path
        The file that names it.
    name
        As it stands there.

    Raises
    ------
    SourceError
        It is not in the folder of that file, or below.
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
        What its OME-XML says.
    missing
        Number of planes that are announced and not there.
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
                raise SourceError(f"{file.path}: has {count:,} levels, which cannot be; export it again.")
            self.levels += [OmeSeries(image, where, number + 1) for number in range(count)]

    @property
    def fits(self) -> bool:
        """True if its pages have the size that the OME-XML says."""
        page = [size for axis, size in zip(self.axes, self.shape, strict=True) if axis in "YXS"]
        return list(self.keyframe.shape) == page

    @property
    def files(self) -> list[str]:
        """Paths of all files with planes of it."""
        return sorted({file.path for file, _ in self._where.values()})

    @property
    def dataoffset(self) -> int | None:
        """Where the pixels begin if all of them follow each other as they are in memory."""
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
    """Return the images of an OME-TIFF that have planes; those with planes in the opened file come first.

    Raises
    ------
    SourceError
        A file lies outside the folder, is damaged, or the metadata list planes again and again.
    """
    found = []
    for image in metadata.images:
        where = _planes(path, image, files)
        if where:
            own = any(files.is_own(block) for block in image.blocks)
            found.append((not own, OmeSeries(image, where)))
    return [series for _, series in sorted(found, key=lambda each: each[0])]  # else in order


def _planes(path: str, image: OmeImage, files: OmeFileSet) -> dict[int, tuple[PageFile, int]]:
    """Return where the planes are that are there, by their numbers."""
    where: dict[int, tuple[PageFile, int]] = {}
    listed = 0
    for block in image.blocks:
        if any(first >= size for first, size in zip(block.first, image.page_shape, strict=True)):
            continue  # ImageJ keeps those of planes that were cropped away
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
            raise SourceError(f"{path}: its OME-XML lists the same planes again and again; export it again.")
        where.update((begin + i, (file, block.ifd + i)) for i in range(count))
    return where
