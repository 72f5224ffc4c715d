"""Find training images: files, folders, globs, prepared folders, and images that are already open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.readers import ImageSource
from napari_mgbpv2.io.readers.discovery import Search, check_found, find_locations, images_in
from napari_mgbpv2.io.readers.tiff.multi_file import parts_of_other_images
from napari_mgbpv2.training.data.patches import Index, is_prepared, open_prepared, read_index
from napari_mgbpv2.training.data.ranges import CommonRange

Image = str | ImageSource  # an absolute path or an address, or an open image
Paths = str | os.PathLike[str] | ImageSource | Sequence[str | os.PathLike[str] | ImageSource]


@dataclass(frozen=True)
class FoundImages:
    """The images of some paths, in order, each once.

    Attributes
    ----------
    images
        What to open.
    given_range, common_range
        Only if all images come from one prepared folder: black and white that were given for all images, or
        estimated for images whose type does not define them.
    skipped
        Path and reason of images that were skipped during preparation or that cannot be read.
    others
        Path and reason of other entries: not files, or written by this program.
    """

    images: tuple[Image, ...]
    given_range: tuple[float, float] | None = None
    common_range: CommonRange | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    others: tuple[tuple[str, str], ...] = ()


def find_images(paths: Paths) -> FoundImages:
    """Find images. Only the index of a prepared folder is opened.

    Parameters
    ----------
    paths
        One or several of: an image file or Zarr, or the address of a Zarr; a folder, searched with all below it in the
        order of names and numbers, but for hidden files, prepared folders, and what this program has made; a pattern
        such as ``scans/**/*.tif``; a folder that `prepare` made; an open image.

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
    skipped_before: list[tuple[str, str]] = []
    left_out: list[tuple[str, str, bool]] = []
    for path in several:
        if isinstance(path, ImageSource):
            images[id(path)] = path
            indices.append(None)
            continue
        searches: list[Search] = []
        for place in find_locations(path):
            index = read_index(place.path) if is_prepared(place.path) else None
            indices.append(index)
            if index is None:
                searches.append(images_in(place, is_skipped=is_prepared, every_file=True))
                images |= {image.path: image.path for image in searches[-1].images}
            else:
                images |= {image.path: image for image in open_prepared(place.path, index)}
                skipped_before += [(os.path.join(place.path, each.source), each.reason) for each in index.skipped]
        found = [image for search in searches for image in search.images]
        for part, first in parts_of_other_images(image.path for image in found if image.folder is not None).items():
            images.pop(part, None)
            left_out.append((part, f"a part of the image in {os.path.basename(first)}", False))
        if len(searches) == len(indices) or not any(indices):
            check_found(path, searches)
        left_out += [(each.path, each.reason, each.is_failure) for search in searches for each in search.skipped]
    skipped = tuple(skipped_before)
    skipped += tuple((path, reason) for path, reason, is_failure in left_out if is_failure and path not in images)
    others = tuple((path, reason) for path, reason, is_failure in left_out if not is_failure and path not in images)
    only = indices[0] if len(indices) == 1 else None
    if only is None:
        return FoundImages(tuple(images.values()), skipped=skipped, others=others)
    return FoundImages(tuple(images.values()), only.given_range, only.common_range, skipped, others)
