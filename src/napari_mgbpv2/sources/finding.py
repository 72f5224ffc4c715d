"""Which images are meant by paths, folders, patterns and addresses."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator

from napari_mgbpv2.addresses import is_url
from napari_mgbpv2.errors import SourceError

Asked = Callable[[str], bool]

ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup")
# What is looked for in a folder. A file that is named itself may have any name: its content tells what it is.
IMAGE_SUFFIXES = (
    ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".svs", ".ndpi", ".lsm", ".stk", ".qptiff",
    ".png", ".jpg", ".jpeg", ".jp2", ".webp", ".bmp", ".gif", ".npy", ".zarr.zip", ".ozx", ".nii", ".nii.gz",
    ".czi", ".dv", ".lif", ".nd2",
)  # fmt: skip


def find_sources(patterns: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """Find images; nothing is opened.

    Parameters
    ----------
    patterns
        One or several of: an image file or a Zarr, whatever its name; a folder, searched with all below it for Zarrs
        and for files with the suffix of an image, but for hidden ones; a pattern such as ``scans/**/*.tif``; an
        address, ``https://...`` or ``s3://...``.

    Returns
    -------
    list of str
        Absolute paths and addresses, each once, in the order of ``patterns`` and of names and numbers in each: what
        `open_source` takes.

    Raises
    ------
    SourceError
        A path does not exist, a folder holds no image, or a pattern matches nothing.
    """
    several = [patterns] if isinstance(patterns, (str, os.PathLike)) else list(patterns)
    if not several:
        raise SourceError("no image is given; name image files, folders or patterns such as 'scans/*.tif'.")
    found = (image for path in several for place in places(path) for image in images_at(place, is_image=_has_suffix))
    return list(dict.fromkeys(found))


def places(path: str | os.PathLike[str]) -> list[str]:
    """Return an absolute path or an address as it is, or what it matches where it is a pattern, in order.

    Raises
    ------
    SourceError
        There is nothing.
    """
    given = os.fspath(path)
    if is_url(given):
        return [given]
    given = os.path.abspath(given)
    if os.path.exists(given):
        return [given]
    matches = glob.glob(given, recursive=True) if glob.has_magic(given) else []
    if not matches:
        what = "no file or folder matches this pattern" if glob.has_magic(given) else "there is no such file or folder"
        raise SourceError(f"{given}: {what}; check the path.")
    zarrs = {match for match in matches if is_zarr(match)}
    return sorted((match for match in matches if not _lies_below(match, zarrs)), key=natural_order)


def images_at(place: str, *, is_image: Asked = lambda _: True, is_left_out: Asked = lambda _: False) -> list[str]:
    """Return the place itself, or the images below it where it is a folder, in order.

    Parameters
    ----------
    place
        As `places` gives it.
    is_image
        Which files of a folder are images; by default all that are not hidden.
    is_left_out
        Which folders below it are not searched; by default only hidden ones.

    Raises
    ------
    SourceError
        It is a folder without images.
    """
    if not os.path.isdir(place) or is_zarr(place):
        return [place]
    below = sorted(_below(place, is_image, is_left_out), key=natural_order)
    if not below:
        raise SourceError(f"{place}: this folder holds no image; give one with TIFF, PNG, JPEG, .npy or Zarr images.")
    return below


def is_zarr(folder: str) -> bool:
    """Tell whether there is a Zarr array or group."""
    return any(os.path.exists(os.path.join(folder, marker)) for marker in ZARR_MARKERS)


def natural_order(path: str) -> tuple[list[str | int], str]:
    """Return what to sort by so that "2.tif" comes before "10.tif"."""
    parts: list[str | int] = [*re.split(r"([0-9]+)", path.casefold())]  # text and digits by turns
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, path


def _below(folder: str, is_image: Asked, is_left_out: Asked) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if is_zarr(entry.path) or (entry.is_file() and is_image(entry.path)):
            yield entry.path
        elif entry.is_dir(follow_symlinks=False) and not is_left_out(entry.path):  # links to folders may go round
            yield from _below(entry.path, is_image, is_left_out)


def _lies_below(path: str, folders: set[str]) -> bool:
    above = os.path.dirname(path)
    while above not in folders and above != os.path.dirname(above):
        above = os.path.dirname(above)
    return above in folders


def _has_suffix(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES)
