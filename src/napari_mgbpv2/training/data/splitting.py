"""Split images into parts for training and held-out parts, and choose crops for validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.training.data.channel_planes import ChannelPlanes

_ENOUGH_IMAGES = 5  # with fewer, holding out a whole one would cost too much


class Region(NamedTuple):
    """Rectangle of all planes of an image, which is identified by its number."""

    image: int
    planes: int
    rows: Span
    columns: Span


def split(
    images: Sequence[ChannelPlanes], share: float, patch: int, reach: int, unit: int
) -> tuple[list[Region], list[Region]]:
    """Divide images into what training uses and what is held out.

    Parameters
    ----------
    images
        The images.
    share
        Share to hold out, from 0 to below 1.
    patch
        Smallest height and width for training, in pixels.
    reach
        Pixels beyond a crop that training reads. They stay outside of held-out parts, too. A multiple of ``unit``.
    unit
        Every region starts and ends at multiples of this: the upscaling factor.

    Returns
    -------
    tuple of list
        Regions for training crops, and regions for validation; the latter is empty if ``share`` is 0.

    Raises
    ------
    ImageError
        Too little would be left for training.
    """
    if not 0 <= share < 1:
        raise ImageError(f"hold_out is {share!r}; it must be a share from 0 to below 1.")
    whole = [_whole(number, planes) for number, planes in enumerate(images)]
    if share == 0:
        return whole, []
    if len(whole) >= _ENOUGH_IMAGES:
        count = min(len(whole) - 1, max(1, round(share * len(whole))))
        held = set(_evenly_spaced(len(whole), count))
        return [r for r in whole if r.image not in held], [r for r in whole if r.image in held]
    used, held_out = [], []
    for region in whole:
        width = region.columns.size
        boundary = (width - max(1, round(share * width))) // unit * unit
        if boundary - reach >= patch:
            used.append(region._replace(columns=Span(0, boundary - reach)))
            held_out.append(region._replace(columns=Span(boundary, width)))
        else:
            used.append(region)
    if not held_out:
        raise ImageError(
            f"the images are too small to hold out {share:.0%} besides patches of {patch} px; "
            "give images for validation, use smaller patches, or hold nothing out."
        )
    return used, held_out


def _whole(number: int, planes: ChannelPlanes) -> Region:
    height, width = planes.size
    return Region(number, planes.count, Span(0, height), Span(0, width))


class Cell(NamedTuple):
    """A rectangle of one plane of a region."""

    region: Region
    plane: int
    rows: Span
    columns: Span


def cells(regions: Sequence[Region], count: int, size: int, unit: int = 1) -> Iterator[Cell]:
    """Choose up to ``count`` rectangles of at most ``size`` px that do not overlap, evenly over all planes.

    They start at multiples of ``unit``, and ``size`` is rounded down to a multiple of it.
    """
    size = max(unit, size // unit * unit)
    grids = [(_divide(region.rows, size, unit), _divide(region.columns, size, unit)) for region in regions]
    counts = [region.planes * len(rows) * len(columns) for region, (rows, columns) in zip(regions, grids, strict=True)]
    ends = np.cumsum(counts, dtype=np.int64)
    for number in _evenly_spaced(int(ends[-1]), count):
        at = int(np.searchsorted(ends, number, side="right"))
        region, (rows, columns) = regions[at], grids[at]
        inside = number - int(ends[at]) + counts[at]
        plane, row, column = (int(i) for i in np.unravel_index(inside, (region.planes, len(rows), len(columns))))
        yield Cell(region, plane, rows[row], columns[column])


def _evenly_spaced(total: int, count: int) -> list[int]:
    """Return up to ``count`` of the first ``total`` numbers, evenly spread and in order."""
    count = min(total, count)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def _divide(span: Span, size: int, unit: int) -> list[Span]:
    """Return as many spans of ``size`` as fit, centred, or the whole axis if it is shorter."""
    count, size = max(1, span.size // size), min(size, span.size)
    first = span.start + (span.size - count * size) // 2 // unit * unit
    return [Span(start, start + size) for start in range(first, first + count * size, size)]
