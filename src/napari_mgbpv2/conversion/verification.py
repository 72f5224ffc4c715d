"""Whether a finished result is all there, and as it was written."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from napari_mgbpv2.addresses import Destination, absolute_path
from napari_mgbpv2.errors import MGBPv2Error

_TIFF = (".tif", ".tiff")
_BLOCK = 1024  # pixels along y and x of what is compared at a time


def faults_of(result: Destination, *, thorough: bool = True) -> Iterator[str]:
    """Name what is wrong with a result, a line each; nothing where nothing is.

    Parameters
    ----------
    result
        An OME-Zarr, on a disk or in an object store, or an OME-TIFF that this package has written.
    thorough
        Whether all pixels are read: their checksums, that they can be decoded, and that each level of the pyramid holds
        the means of the one before it. Else only what is there and how large it is.

    Raises
    ------
    DestinationError
        The network does not give it.
    """
    found = absolute_path(result)
    if is_tiff(found):
        assert isinstance(found, Path)
        yield from _faults_in_tiff(found, thorough=thorough)
        return
    from napari_mgbpv2.io.writers.ome_zarr import faults_in_zarr, translate_write_errors

    with translate_write_errors(found):
        yield from faults_in_zarr(found, thorough=thorough)


def contents_of(result: Destination) -> str:
    """Say what a result without faults consists of, for people."""
    found = absolute_path(result)
    if is_tiff(found):
        return "an OME-TIFF, whose format has no checksums"
    from napari_mgbpv2.io.writers.ome_zarr import describe

    return describe(found)


def is_tiff(result: Destination) -> bool:
    """Whether a result is a TIFF by its name."""
    return isinstance(result, Path) and str(result).lower().endswith(_TIFF)


def _faults_in_tiff(path: Path, *, thorough: bool) -> Iterator[str]:
    from napari_mgbpv2.io.writers.ome_tiff import faults_in_tiff, read_provenance

    faults = list(faults_in_tiff(path, thorough=thorough))
    yield from faults
    if thorough and not faults:
        dtype = ((read_provenance(path) or {}).get("output") or {}).get("dtype")
        try:
            yield from _faults_of_pyramid(path, None if dtype is None else np.dtype(dtype))
        except (MGBPv2Error, TypeError) as error:
            yield f"it cannot be read ({error})"


def _faults_of_pyramid(path: Path, dtype: np.dtype[Any] | None) -> Iterator[str]:
    """Compare each level with the means of the one before it, in the type in which they were made."""
    from napari_mgbpv2.io.readers import open_source
    from napari_mgbpv2.io.writers.ome_zarr import is_half

    levels = [open_source(path)]
    count = _number_of_levels(path)
    levels += [open_source(path, level=number) for number in range(1, count)]
    y, x = (levels[0].axes.index(axis) for axis in "yx")
    for number, (finer, coarser) in enumerate(itertools.pairwise(levels), 1):
        steps = [_BLOCK if axis in "yx" else size if axis == "s" else 1 for axis, size in _sizes(coarser)]
        for starts in itertools.product(
            *(range(0, n, step) for n, step in zip(coarser.data.shape, steps, strict=True))
        ):
            place = [
                slice(start, min(start + step, n))
                for start, step, n in zip(starts, steps, coarser.data.shape, strict=True)
            ]
            above = [
                slice(2 * part.start, 2 * part.stop) if axis in (y, x) else part for axis, part in enumerate(place)
            ]
            above = [slice(p.start, min(p.stop, n)) for p, n in zip(above, finer.data.shape, strict=True)]
            before, after = np.asarray(finer.data[tuple(above)]), np.asarray(coarser.data[tuple(place)])
            image = np.moveaxis(before, (y, x), (-2, -1)).astype(dtype or before.dtype)
            if not is_half(np.moveaxis(after, (y, x), (-2, -1)), image):
                where = ", ".join(f"{part.start}:{part.stop}" for part in place)
                yield f"level {number}: the pixels [{where}] are not the means of those of level {number - 1}"


def _sizes(source: Any) -> list[tuple[str, int]]:
    return list(zip(source.axes, source.data.shape, strict=True))


def _number_of_levels(path: Path) -> int:
    import tifffile

    with tifffile.TiffFile(path) as file:
        return len(file.series[0].levels)
