"""Whether a finished OME-TIFF is all there: by its own tags, and by decoding it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_mgbpv2.io.writers.ome_tiff.reading import read_provenance


def faults_in_tiff(path: Path, *, thorough: bool = True) -> Iterator[str]:
    """Name what is wrong with a finished OME-TIFF of this package, a line each; nothing where nothing is.

    Parameters
    ----------
    path
        The file.
    thorough
        Whether all tiles are decoded. Else only whether they lie within the file.
    """
    import tifffile

    if not path.exists():
        yield "it does not exist"
        return
    try:
        if (provenance := read_provenance(path)) is None:
            yield "its metadata are damaged, or it is not a result of this package"
            return
        size = path.stat().st_size
        with tifffile.TiffFile(path) as file:
            levels = file.series[0].levels
            yield from _faults_of_shapes([level.shape for level in levels], provenance)
            for number, level in enumerate(levels):
                for position, page in enumerate(level.pages):
                    yield from _faults_of_page(page, f"level {number}, page {position}", size, thorough)
    except Exception as error:  # of tifffile's, whose kinds are as many as those of damage
        yield f"it cannot be read ({' '.join(str(error).split())[:150] or type(error).__name__})"


def _faults_of_shapes(shapes: list[tuple[int, ...]], provenance: dict[str, Any]) -> Iterator[str]:
    for number, (finer, coarser) in enumerate(itertools.pairwise(shapes), 1):
        sizes = zip(finer, coarser, strict=True)
        if len(finer) != len(coarser) or any(after not in (before, -(-before // 2)) for before, after in sizes):
            yield f"level {number}: it is {coarser}, which is not half of {finer}"
    output = provenance.get("output", {})
    # Axes of one pixel are left out of a shape here or there.
    if output and sorted(n for n in output["shape"] if n > 1) != sorted(n for n in shapes[0] if n > 1):
        yield f"level 0: it is {shapes[0]}, and was to be {output['shape']}"
    if output.get("levels") and len(shapes) != output["levels"]:
        yield f"it has {len(shapes)} levels, and was to have {output['levels']}"


def _faults_of_page(page: Any, name: str, size: int, thorough: bool) -> Iterator[str]:
    offsets, counts = page.dataoffsets, page.databytecounts
    expected = math.prod(page.chunked)
    if len(offsets) != expected or len(counts) != expected:
        yield f"{name}: it has {len(offsets)} tiles, and not {expected}"
        return
    outside = sum(not count or start + count > size for start, count in zip(offsets, counts, strict=True))
    if outside:
        yield f"{name}: {outside} of its {expected} tiles are not within the file"
        return
    if not thorough:
        return
    try:
        for _ in page.segments(maxworkers=1):
            pass
    except Exception as error:
        yield f"{name}: its tiles cannot be decoded ({' '.join(str(error).split())[:150] or type(error).__name__})"
