"""Where the results of several sources go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from napari_mgbpv2.errors import DestinationError

ENDINGS = (".zarr", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".npy", ".nii", ".gz", ".zip", ".ome")


def destinations_of(sources: Sequence[str | os.PathLike[str]], output: Path, scale: int | None) -> list[Path]:
    """Name a destination for each source.

    Parameters
    ----------
    sources
        Paths or URLs.
    output
        Of one source, its destination; of several, or where it is a folder that is no Zarr, a folder for all.
    scale
        Upscaling factor, for the names; None where the model says it.

    Raises
    ------
    DestinationError
        Two sources would have the same destination, or there are several and the output is named like an image.
    """
    into = output.is_dir() and not any((output / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))
    if len(sources) == 1 and not into:
        return [output]
    if not into and output.suffix in (".zarr", ".tif", ".tiff"):
        raise DestinationError(
            f"{output}: there are {len(sources)} sources: name a folder for the results, not an image"
        )
    found: dict[Path, str] = {}
    for source in sources:
        destination = output / f"{name_of(source)}_x{scale or ''}".removesuffix("_x")
        destination = destination.with_name(f"{destination.name}.ome.zarr")
        if destination in found:
            raise DestinationError(
                f"{source} and {found[destination]} would both become {destination}: convert them into two folders"
            )
        found[destination] = str(source)
    return list(found)


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
