"""Which images are meant: files, folders, globs, prepared folders, and images that are open already."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.sources import ImageSource
from napari_mgbpv2.training.data.patches import Index, is_prepared, open_prepared, read_index

Image = str | ImageSource  # an absolute path, or an open image
Paths = str | os.PathLike[str] | ImageSource | Sequence[str | os.PathLike[str] | ImageSource]

_ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup")


@dataclass(frozen=True)
class Found:
    """The images of some paths, in order, each once.

    Attributes
    ----------
    images
        What to open.
    given_range, common_range
        Where they all come from one prepared folder: black and white as they were given to it for all images, or as
        they were chosen for those whose type does not say them.
    skipped
        What had been left out when they were prepared: path and reason.
    """

    images: tuple[Image, ...]
    given_range: tuple[float, float] | None = None
    common_range: tuple[float, float] | None = None
    skipped: tuple[tuple[str, str], ...] = ()


def find_images(paths: Paths) -> Found:
    """Find images; nothing is opened but the index of a prepared folder.

    Parameters
    ----------
    paths
        One or several of: an image file or Zarr; a folder, searched with all below it in the order of the names, but
        for hidden files and prepared folders; a pattern such as ``scans/**/*.tif``; a folder that `prepare` made;
        an open image.

    Raises
    ------
    SourceError
        A path does not exist, a folder is empty, or a pattern matches nothing.
    """
    several = [paths] if isinstance(paths, (str, os.PathLike, ImageSource)) else list(paths)
    if not several:
        raise SourceError("no image is given; name image files, folders or patterns such as 'scans/*.tif'.")
    images: dict[str | int, Image] = {}
    indices: list[Index | None] = []
    for path in several:
        if isinstance(path, ImageSource):
            images[id(path)] = path
            indices.append(None)
            continue
        for place in _places(os.path.abspath(os.fspath(path))):
            index = read_index(place) if is_prepared(place) else None
            indices.append(index)
            for image in _images(place) if index is None else open_prepared(place, index):
                images[image if isinstance(image, str) else image.path] = image
    skipped = tuple((each.source, each.reason) for index in indices if index for each in index.skipped)
    only = indices[0] if len(indices) == 1 else None
    if only is None:
        return Found(tuple(images.values()), skipped=skipped)
    return Found(tuple(images.values()), only.given_range, only.common_range, skipped)


def _places(path: str) -> list[str]:
    """Return ``path``, or what it matches where it is a pattern."""
    if os.path.exists(path):
        return [path]
    matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
    if not matches:
        what = "no file or folder matches this pattern" if glob.has_magic(path) else "there is no such file or folder"
        raise SourceError(f"{path}: {what}; check the path.")
    return matches


def _images(place: str) -> list[str]:
    """Return the path itself, or the images below it where it is a folder."""
    if not os.path.isdir(place) or _is_zarr(place):
        return [place]
    below = sorted(_below(place))
    if not below:
        raise SourceError(f"{place}: this folder holds no image; give one with TIFF, PNG, JPEG, .npy or Zarr images.")
    return below


def _below(folder: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_file() or _is_zarr(entry.path):
            yield entry.path
        elif entry.is_dir(follow_symlinks=False) and not is_prepared(entry.path):  # links to folders may go round
            yield from _below(entry.path)


def _is_zarr(folder: str) -> bool:
    return any(os.path.exists(os.path.join(folder, marker)) for marker in _ZARR_MARKERS)
