"""Where the results of several sources go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from napari_mgbpv2.addresses import Destination, display_path, has_secrets, is_url, url_name
from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.readers.discovery import IMAGE_SUFFIXES

# Taken off the name of a source.
ENDINGS = (".zarr", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".npy", ".nii", ".gz", ".zip", ".ome")
ZARR_ENDINGS = (".zarr",)
TIFF_ENDINGS = (".tif", ".tiff")
# What a result is not written as, though its name would say so.
OTHER_ENDINGS = (
    *(ending for ending in IMAGE_SUFFIXES if ending not in TIFF_ENDINGS),
    ".zip", ".gz", ".tar", ".h5", ".hdf5", ".n5", ".npz", ".mrc", ".ims", ".oir", ".vsi", ".dcm", ".hdr", ".img",
    ".heic", ".heif", ".jxl", ".exr", ".svg", ".pdf", ".eps", ".raw", ".dng", ".nrrd", ".mha", ".mhd", ".vrt", ".nc",
    ".mp4", ".avi", ".json",
)  # fmt: skip


def check_ending(destination: Destination) -> None:
    """Refuse the name of a result that promises another format than is written.

    Raises
    ------
    DestinationError
        It ends as a file of another format, is empty, or is an address with more than scheme, host and path.
    """
    name = destination.name if isinstance(destination, Path) else url_name(destination)
    if not name or str(destination) in ("", "."):
        raise DestinationError("the destination has no name: give one such as result.ome.zarr")
    if isinstance(destination, str) and has_secrets(destination):
        raise DestinationError(
            f"{display_path(destination)}: an address to write to has no user, query or fragment; credentials are "
            "taken from the environment"
        )
    ending = next((each for each in OTHER_ENDINGS if name.lower().endswith(each)), None)
    if ending is not None:
        raise DestinationError(
            f"{display_path(str(destination))}: {ending} is not written; end the name in .ome.zarr for an OME-Zarr, or "
            "in .ome.tif for an OME-TIFF, which is a BigTIFF where its size demands it"
        )


@overload
def destinations_of(
    sources: Sequence[str | os.PathLike[str]],
    output: Path,
    scale: int | None,
    *,
    single: bool = False,
    folders: Sequence[str | None] | None = None,
) -> Sequence[Path]: ...


@overload
def destinations_of(
    sources: Sequence[str | os.PathLike[str]],
    output: Destination,
    scale: int | None,
    *,
    single: bool = False,
    folders: Sequence[str | None] | None = None,
) -> Sequence[Destination]: ...


def destinations_of(
    sources: Sequence[str | os.PathLike[str]],
    output: Destination,
    scale: int | None,
    *,
    single: bool = False,
    folders: Sequence[str | None] | None = None,
) -> Sequence[Destination]:
    """Name a destination for each source.

    Parameters
    ----------
    sources
        Paths or URLs.
    output
        A folder for all, made if it is not there; or the destination itself where one source is given by its name. Or
        an address, of the result of a single source or of what holds those of several.
    scale
        Upscaling factor, for the names; None where the model does not say it.
    single
        Whether one source is given by its name, not by a folder or a pattern.
    folders
        For each source, the folder below which it was found: the folders between them are made below ``output``, too.
        None for one that is named itself.

    Raises
    ------
    DestinationError
        Two sources would have the same destination, or the folder is named like an image.
    """
    is_folder = isinstance(output, Path) and _is_folder(output)
    if single and not is_folder:
        return [output]
    if not is_folder and str(output).lower().endswith((*ZARR_ENDINGS, *TIFF_ENDINGS, *OTHER_ENDINGS)):
        what = "several sources need a folder for their results"
        if len(sources) == 1:
            what = "an image found in a folder needs a folder for its result"
        raise DestinationError(f"{display_path(str(output))}: {what}, not the name of an image")
    found: dict[Destination, str] = {}
    for source, folder in zip(sources, folders or [None] * len(sources), strict=True):
        suffix = f"x{scale}" if scale else "upscaled"
        name = f"{name_of(source)}_{suffix}.ome.zarr"
        between = os.path.relpath(os.path.dirname(source), folder) if folder is not None else os.curdir
        if isinstance(output, Path):
            destination: Destination = output / between / name
        else:
            destination = "/".join([output, *([] if between == os.curdir else between.split(os.sep)), name])
        if destination in found:
            raise DestinationError(
                f"{display_path(source)} and {found[destination]} would both become {destination}: "
                "convert them into two folders"
            )
        found[destination] = display_path(source)
    return list(found)


def _is_folder(output: Path) -> bool:
    return output.is_dir() and not any((output / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))


def name_of(source: str | os.PathLike[str]) -> str:
    """Name of a source without what tells its format: "cells" for "data/cells.ome.tif"."""
    text = os.fspath(source)
    name = url_name(text) if is_url(text) else os.path.basename(text.rstrip("/" + os.sep))
    while (stem := _without_ending(name)) != name:
        name = stem
    return name


def _without_ending(name: str) -> str:
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name
