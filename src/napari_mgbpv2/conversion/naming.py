"""Where the results of several sources go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from napari_mgbpv2.addresses import Destination
from napari_mgbpv2.errors import DestinationError

ENDINGS = (".zarr", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".npy", ".nii", ".gz", ".zip", ".ome")


@overload
def destinations_of(
    sources: Sequence[str | os.PathLike[str]], output: Path, scale: int | None, *, single: bool = False
) -> Sequence[Path]: ...


@overload
def destinations_of(
    sources: Sequence[str | os.PathLike[str]], output: Destination, scale: int | None, *, single: bool = False
) -> Sequence[Destination]: ...


def destinations_of(
    sources: Sequence[str | os.PathLike[str]], output: Destination, scale: int | None, *, single: bool = False
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

    Raises
    ------
    DestinationError
        Two sources would have the same destination, or the folder is named like an image.
    """
    is_folder = isinstance(output, Path) and _is_folder(output)
    if single and not is_folder:
        return [output]
    if not is_folder and str(output).lower().endswith((".zarr", ".tif", ".tiff")):
        raise DestinationError(f"{output}: several sources need a folder for their results, not the name of an image")
    found: dict[Destination, str] = {}
    for source in sources:
        suffix = f"x{scale}" if scale else "upscaled"
        name = f"{name_of(source)}_{suffix}.ome.zarr"
        destination = output / name if isinstance(output, Path) else f"{output}/{name}"
        if destination in found:
            raise DestinationError(
                f"{source} and {found[destination]} would both become {destination}: convert them into two folders"
            )
        found[destination] = str(source)
    return list(found)


def _is_folder(output: Path) -> bool:
    return output.is_dir() and not any((output / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))


def name_of(source: str | os.PathLike[str]) -> str:
    """Name of a source without what tells its format: "cells" for "data/cells.ome.tif"."""
    name = str(source).rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    while (stem := _without_ending(name)) != name:
        name = stem
    return name


def _without_ending(name: str) -> str:
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name
