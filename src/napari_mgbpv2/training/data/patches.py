"""Read prepared folders: their index, and their patches as the images that they were cut from.

`prepared_folder` writes these folders.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mgbpv2.caching import BoundedCache
from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.image import Pixels, Window, source_without_metadata
from napari_mgbpv2.io.readers import FileArray, ImageSource
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.training.data.ranges import CommonRange

INDEX_NAME = "patches.json"
_FORMAT = "napari-mgbpv2 patches"
_VERSION = 1
_CACHE_BYTES = 64 * 2**20  # of decoded patches for each open image
_PNG_DTYPES, _PNG_SAMPLES = ("uint8", "uint16"), (1, 2, 3, 4)


@dataclass(frozen=True)
class PatchedImage:
    """Layout of one image in its patches.

    Attributes
    ----------
    source
        Name of the image, see `unique_names`, or its path in folders that hold whole paths.
    bytes, modified
        Size in bytes and modification time in nanoseconds of that file, to recognise a changed one.
    axes, shape, dtype
        Of the whole image; y, x and, for colours, s come last.
    folders
        One for each plane, in C order.
    rows, columns
        First and end row or column of the patches; that of rows r and columns c is ``r{r[0]}_c{c[0]}`` + ``suffix``.
    suffix
        ".png", or ".npy" for pixels that PNG does not hold.
    """

    source: str
    bytes: int
    modified: int
    axes: str
    shape: tuple[int, ...]
    dtype: str
    folders: tuple[str, ...]
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    suffix: str

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> PatchedImage:
        """Read what `asdict` wrote."""
        spans = {name: tuple(Span(*map(int, span)) for span in record[name]) for name in ("rows", "columns")}
        tuples = {"shape": tuple(map(int, record["shape"])), "folders": tuple(map(str, record["folders"]))}
        return cls(**{**record, **spans, **tuples})


@dataclass(frozen=True)
class SkippedImage:
    """Skipped file with the reason."""

    source: str
    bytes: int
    modified: int
    reason: str


@dataclass(frozen=True)
class Index:
    """Contents of a prepared folder.

    Attributes
    ----------
    patch, stride
        Size of the patches and distance of their beginnings, in pixels.
    given_range, common_range
        Values of black and white that were given for all images; or those of images whose type does not define
        them, per type if there are several types. None if not applicable.
    images, skipped
        Images in the folder, and images that could not be read.
    """

    patch: int
    stride: int
    given_range: tuple[float, float] | None
    common_range: CommonRange | None
    images: tuple[PatchedImage, ...]
    skipped: tuple[SkippedImage, ...]

    def write(self, folder: Path) -> None:
        """Write the index of ``folder``, which makes it a prepared one."""
        record = asdict(self)
        if isinstance(self.common_range, Mapping) and len(self.common_range) == 1:
            (record["common_range"],) = self.common_range.values()  # the format of the first version
        with open(folder / INDEX_NAME, "w", encoding="utf-8") as file:
            json.dump({"format": _FORMAT, "version": _VERSION, **record}, file, indent=1)


def is_prepared(folder: str | os.PathLike[str]) -> bool:
    """Return whether `prepare` made this folder."""
    return os.path.isfile(os.path.join(folder, INDEX_NAME))


def read_index(folder: str | os.PathLike[str]) -> Index:
    """Read the index of a prepared folder.

    Raises
    ------
    SourceError
        It is damaged, or of a later version.
    """
    path = os.path.join(folder, INDEX_NAME)
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        if (record["format"], record["version"]) != (_FORMAT, _VERSION):
            raise ValueError(f"it is of version {record['version']} of {record['format']!r}")
        return Index(
            int(record["patch"]),
            int(record["stride"]),
            _range(record["given_range"]),
            _ranges(record["common_range"]),
            tuple(map(PatchedImage.from_record, record["images"])),
            tuple(SkippedImage(**each) for each in record["skipped"]),
        )
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); delete the folder and prepare it again.") from error


def _range(record: Any) -> tuple[float, float] | None:
    if record is None:
        return None
    low, high = map(float, record)
    return low, high


def _ranges(record: Any) -> CommonRange | None:
    """Read one range for all types, or one per type by its name."""
    if not isinstance(record, dict):
        return _range(record)
    ranges = {str(name): _range(each) for name, each in record.items()}
    return {name: each for name, each in ranges.items() if each is not None}


def open_prepared(folder: str | os.PathLike[str], index: Index) -> list[ImageSource]:
    """Open the images of a prepared folder. The original files are not needed.

    The path of each is its name below the folder, which keeps images of several prepared folders apart.
    """
    place = os.fspath(folder)
    return [
        source_without_metadata(
            PatchedArray(place, image), image.axes, os.path.join(place, image.source), "prepared patches"
        )
        for image in index.images
    ]


class PatchedArray(FileArray):
    """The pixels of an image, read from its patches.

    Parameters
    ----------
    folder
        The prepared folder.
    image
        One of its images.
    """

    def __init__(self, folder: str, image: PatchedImage) -> None:
        super().__init__(folder, image.shape, np.dtype(image.dtype), reopen=(PatchedArray, (folder, image)))
        self._image = image
        self._leading = len(image.axes.replace("s", "")) - 2
        self._cache: BoundedCache[str, Pixels] = BoundedCache(_CACHE_BYTES)

    def _read(self, window: Window) -> Pixels:
        pixels = np.empty([part.stop - part.start for part in window], self.dtype)
        leading, rows, columns = window[: self._leading], window[self._leading], window[self._leading + 1]
        samples: tuple[Any, ...] = window[self._leading + 2 :]
        for index in np.ndindex(pixels.shape[: self._leading]):
            position = [part.start + i for part, i in zip(leading, index, strict=True)]
            number = int(np.ravel_multi_index(position, self.shape[: self._leading])) if position else 0
            folder, plane = self._image.folders[number], pixels[index]
            for row, from_row, to_row in _covering(self._image.rows, rows):
                for column, from_column, to_column in _covering(self._image.columns, columns):
                    patch = self._patch(folder, row, column)
                    plane[to_row, to_column] = patch[from_row, from_column][(..., *samples)]
        return pixels

    def _patch(self, folder: str, row: Span, column: Span) -> Pixels:
        name = f"{folder}/{patch_name(row, column, self._image.suffix)}"
        return self._cache.get(name, lambda: self._load(name, row, column))

    def _load(self, name: str, row: Span, column: Span) -> Pixels:
        path = os.path.join(self.path, name)
        try:
            pixels = load_patch(path)
        except Exception as error:  # the codec decides how a damaged patch fails
            raise SourceError(f"{path}: cannot be read ({error}); delete the folder and prepare it again.") from error
        expected = (row.size, column.size, *self.shape[self._leading + 2 :])
        if pixels.shape != expected or pixels.dtype != self.dtype:
            raise SourceError(
                f"{path}: holds {pixels.shape} {pixels.dtype} where {expected} {self.dtype} belongs; "
                "delete the folder and prepare it again."
            )
        return pixels


def _covering(patches: Sequence[Span], wanted: slice) -> Iterator[tuple[Span, slice, slice]]:
    """Yield the fewest patches that cover ``wanted``, with the part to take of each and its place in ``wanted``."""
    position = wanted.start
    while position < wanted.stop:
        patch = max((patch for patch in patches if patch.start <= position), key=lambda patch: patch.stop)
        stop = min(patch.stop, wanted.stop)
        yield (
            patch,
            slice(position - patch.start, stop - patch.start),
            slice(position - wanted.start, stop - wanted.start),
        )
        position = stop


def patch_name(row: Span, column: Span, suffix: str) -> str:
    """Name a patch by the position of its first pixel."""
    return f"r{row.start}_c{column.start}{suffix}"


def suffix_for(dtype: np.dtype[Any], samples: int) -> str:
    """Choose the format of patches: PNG where it keeps the pixels, else NumPy's own."""
    return ".png" if dtype.name in _PNG_DTYPES and samples in _PNG_SAMPLES else ".npy"


def save_patch(path: Path, pixels: Pixels) -> None:
    """Write one patch, (h, w) or (h, w, samples), without loss."""
    if path.suffix == ".npy":
        np.save(path, pixels, allow_pickle=False)
        return
    from imagecodecs import png_encode  # Pillow writes no colours of 16 bits

    path.write_bytes(png_encode(np.ascontiguousarray(pixels), level=1))


def load_patch(path: str) -> Pixels:
    """Read one patch."""
    if path.endswith(".npy"):
        pixels: Pixels = np.load(path, allow_pickle=False)
        return pixels
    from imagecodecs import png_decode

    with open(path, "rb") as file:
        return np.asarray(png_decode(file.read()))
