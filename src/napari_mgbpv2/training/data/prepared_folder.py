"""The paper's preprocessing (Fig. 7): a folder of overlapping patches for every image plane.

Reading a patch of a training image then takes one small file, for any format of the image. The low-resolution side is
computed from the sharp pixels around a crop, which the patches contain, and equals that of the whole image.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from napari_mgbpv2.addresses import display_path, escape_undecodable
from napari_mgbpv2.errors import DestinationError, ImageError, SourceError
from napari_mgbpv2.imaging.alpha import visible_colours
from napari_mgbpv2.io.readers import ImageSource, open_source
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.training.data.channel_planes import error_reason, read_plane, standard_axes
from napari_mgbpv2.training.data.discovery import FoundImages, Image, Paths, find_images
from napari_mgbpv2.training.data.patches import (
    Index,
    PatchedArray,
    PatchedImage,
    SkippedImage,
    is_prepared,
    patch_name,
    read_index,
    save_patch,
    suffix_for,
)
from napari_mgbpv2.training.data.ranges import as_range, common_ranges

Progress = Callable[[int, int], None]

PATCH, STRIDE, GRID = 1024, 768, 16


def prepare(
    paths: Paths,
    folder: str | os.PathLike[str],
    *,
    patch: int = PATCH,
    stride: int = STRIDE,
    value_range: tuple[float, float] | None = None,
    progress: Progress | None = None,
    record_paths: bool = False,
) -> Path:
    """Cut images into overlapping patches, for `ImageSamples` to read.

    Parameters
    ----------
    paths
        Files, folders, patterns, prepared folders or open images.
    folder
        Folder for the patches. It gets one folder of PNG files (.npy for floats and wide integers) per image plane,
        named by the row and column of their first pixel, and an index, ``patches.json``. It appears when it is
        complete. A folder of the same images and patches is left unchanged.
    patch
        Height and width of a patch in pixels, a multiple of 16. The last of a row or column is up to 15 pixels larger.
    stride
        Distance between patches in pixels, a multiple of 16. The last patch ends at the edge of the image.
    value_range
        Values of black and white to record. By default those of the type for 8 bits and booleans; else 0 and the
        99.9th percentile of a coarse sample.
    progress
        Called with the number of images done and of all.
    record_paths
        Whether ``patches.json`` holds the whole paths of the images; by default their names, with as many
        parent folders as needed to distinguish them. Sizes and modification times are always recorded.

    Returns
    -------
    Path
        The folder, absolute.

    Raises
    ------
    SourceError, ImageError
        No image can be read.
    DestinationError
        The folder exists and holds something else, or cannot be written.
    """
    if patch % GRID or stride % GRID or not 0 < stride <= patch:
        raise ImageError(
            f"patches of {patch} px every {stride} px: both must be multiples of {GRID}, not leaving gaps."
        )
    place = Path(os.path.abspath(folder))
    found = find_images(paths)
    if _is_done(place, found, patch, stride):
        return place
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.partial")  # hidden: not found as images
    try:
        partial.mkdir(parents=True)
        _write(partial, found, patch, stride, value_range, progress, record_paths=record_paths)
        with suppress(OSError):
            place.rmdir()  # an empty folder may be replaced
        try:
            os.replace(partial, place)
        except OSError:  # another process may have been faster
            if not _is_done(place, found, patch, stride):
                raise
    except (SourceError, DestinationError):
        raise
    except OSError as error:
        raise DestinationError(
            f"{place}: cannot be written ({error.strerror or error}); make room, or give another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return place


def _is_done(place: Path, found: FoundImages, patch: int, stride: int) -> bool:
    """Return whether the folder holds these patches; raise `DestinationError` if it holds something else."""
    if not is_prepared(place):
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise DestinationError(f"{place}: exists and is not a folder of prepared patches; give another folder.")
        return False
    index = read_index(place)
    there = {(each.source, each.bytes, each.modified) for each in index.images}
    there |= {(each.source, each.bytes, each.modified) for each in index.skipped}
    known = {
        (name, *_size_and_mtime(image)) for name, image in zip(unique_names(found.images), found.images, strict=True)
    }
    known_by_paths = {(_path_of(image), *_size_and_mtime(image)) for image in found.images}
    if there not in (known, known_by_paths) or (index.patch, index.stride) != (patch, stride):
        raise DestinationError(
            f"{place}: holds patches of other images, of other versions of them or of another size; "
            "delete it or give another folder."
        )
    return True


def unique_names(images: Sequence[Image]) -> list[str]:
    """Return a name per image: the shortest ends of the paths that are all different."""
    paths = [escape_undecodable(display_path(_path_of(image))).replace(os.sep, "/") for image in images]
    parts = [[part for part in path.split("/") if part] for path in paths]
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(set(paths)):
            return names
    return paths


def _path_of(image: Image) -> str:
    return image if isinstance(image, str) else image.path


def _size_and_mtime(image: Image) -> tuple[int, int]:
    """Return size in bytes and modification time in nanoseconds of an image's file, or zeros without a file."""
    try:
        status = os.stat(_path_of(image))
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _write(
    folder: Path,
    found: FoundImages,
    patch: int,
    stride: int,
    value_range: tuple[float, float] | None,
    progress: Progress | None,
    *,
    record_paths: bool,
) -> None:
    names = [_path_of(image) for image in found.images] if record_paths else unique_names(found.images)
    images: list[PatchedImage] = []
    skipped: list[SkippedImage] = []
    for number, (name, image) in enumerate(zip(names, found.images, strict=True)):
        fingerprint = name, *_size_and_mtime(image)
        try:
            source = open_source(image) if isinstance(image, str) else image
            images.append(_write_image(folder, f"{number:04d}", source, fingerprint, patch, stride))
        except SourceError as error:
            for left in folder.glob(f"{number:04d}*"):
                shutil.rmtree(left)
            reason = error_reason(error)
            if not record_paths:
                reason = reason.replace(os.path.dirname(_path_of(image)) + os.sep, "")
            skipped.append(SkippedImage(*fingerprint, reason))
        if progress is not None:
            progress(number + 1, len(found.images))
    if not images:
        raise ImageError(f"none of {len(skipped)} images can be read; {skipped[0].source}: {skipped[0].reason}")
    # the patches contain the same pixels as the images and are faster to read
    patched = [(image.axes, PatchedArray(os.fspath(folder), image)) for image in images]
    given, common = as_range(value_range) or found.given_range, found.common_range
    if given is None:
        common = common_ranges([(axes, visible_colours(data, axes)) for axes, data in patched], common)
    Index(patch, stride, given, common, tuple(images), tuple(skipped)).write(folder)


def _write_image(
    folder: Path, name: str, source: ImageSource, fingerprint: tuple[str, int, int], patch: int, stride: int
) -> PatchedImage:
    axes, order = standard_axes(source.axes)
    shape = tuple(source.data.shape[i] for i in order)
    leading = len(axes.replace("s", "")) - 2
    rows, columns = (spans(size, patch, stride) for size in shape[leading : leading + 2])
    suffix = suffix_for(source.data.dtype, shape[-1] if "s" in axes else 1)
    folders = []
    for position in np.ndindex(shape[:leading]):
        folders.append("_".join([name, *(f"{axis}{at}" for axis, at in zip(axes, position, strict=False))]))
        (folder / folders[-1]).mkdir()
        for row, column in _grid(rows, columns):
            pixels = read_plane(source.data, source.axes, position, slice(*row), slice(*column))
            save_patch(folder / folders[-1] / patch_name(row, column, suffix), pixels)
    return PatchedImage(*fingerprint, axes, shape, source.data.dtype.name, tuple(folders), rows, columns, suffix)


def _grid(rows: tuple[Span, ...], columns: tuple[Span, ...]) -> Iterator[tuple[Span, Span]]:
    return ((row, column) for row in rows for column in columns)


def spans(size: int, patch: int, stride: int) -> tuple[Span, ...]:
    """Divide an axis of ``size`` pixels into patches that begin at multiples of 16 and cover all of it."""
    last = max(0, size - patch) // GRID * GRID
    starts = [*range(0, last, stride), last]
    return tuple(Span(start, size if start == last else start + patch) for start in starts)
