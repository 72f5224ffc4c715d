"""Tiles of a stored level in the order in which TIFF has them, read a strip of tiles at a time and one ahead."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Region = tuple[slice, ...]
Pixels = npt.NDArray[Any]

BLOCK_BYTES = 16 * 2**20  # read at once, unless a single tile is larger


class ArrayLike(Protocol):
    """An array that is indexed by a tuple of slices and gives something that NumPy converts."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""

    def __getitem__(self, region: Region, /) -> Any:
        """Pixels of ``region``."""


class TiledLevel:
    """One level, page by page, each page's tiles row by row.

    Every pixel is read once. A strip that is read is as high as a tile, so a stored chunk is decoded once if the tile
    is as high as it or a multiple.

    Parameters
    ----------
    pixels
        The level.
    axes
        One letter for each of its axes.
    colour
        Whether c holds the samples of a colour pixel.
    tile
        Height and width of a tile.
    dtype
        Type of the tiles, wide enough for the pixels.
    """

    def __init__(self, pixels: ArrayLike, axes: str, colour: bool, tile: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.pixels, self.tile, self.dtype = pixels, tile, dtype
        self._sizes = dict(zip(axes, pixels.shape, strict=True))
        self._samples = self._sizes["c"] if colour else 1
        self._whole = "cyx" if colour else "yx"  # what a page holds, as it is stored

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile before compression."""
        return math.prod(self.tile) * self._samples * self.dtype.itemsize

    @property
    def page_tiles(self) -> int:
        """Number of tiles of a page."""
        return math.prod(-(-self._sizes[axis] // side) for axis, side in zip("yx", self.tile, strict=True))

    @property
    def pages(self) -> int:
        """Number of pages."""
        return math.prod(size for axis, size in self._sizes.items() if axis not in self._whole)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as it is written: the samples of a colour pixel come last."""
        pages = [size for axis, size in self._sizes.items() if axis not in self._whole]
        samples = [self._samples] if "c" in self._whole else []
        return (*pages, self._sizes["y"], self._sizes["x"], *samples)

    def blocks(self) -> Generator[list[Pixels], None, None]:
        """Whole tiles, (height, width) or (height, width, samples), zero beyond the image; some at a time."""
        with ThreadPoolExecutor(1) as reader:  # the next block is read while the tiles of this one are compressed
            upcoming: Future[Pixels] | None = None
            for region in self._regions():
                block, upcoming = upcoming, reader.submit(self._read, region)
                if block is not None:
                    yield self._cut(block.result())
            if upcoming is not None:
                yield self._cut(upcoming.result())

    def _regions(self) -> Iterator[Region]:
        height, width = self.tile
        width *= max(1, BLOCK_BYTES // self.tile_bytes)
        steps = {axis: size if axis in self._whole else 1 for axis, size in self._sizes.items()}
        steps |= {"y": height, "x": width}
        parts = (
            [slice(start, min(start + steps[axis], size)) for start in range(0, size, steps[axis])]
            for axis, size in self._sizes.items()
        )
        yield from itertools.product(*parts)

    def _read(self, region: Region) -> Pixels:
        """Return the pixels of a region as they are written, without the axes that number pages."""
        block = np.asarray(self.pixels[region]).astype(self.dtype, copy=False)
        whole = [part.stop - part.start for part, axis in zip(region, self._sizes, strict=True) if axis in self._whole]
        block = block.reshape(whole)
        return np.moveaxis(block, 0, -1) if "c" in self._whole else block

    def _cut(self, block: Pixels) -> list[Pixels]:
        """Cut a strip of one row of tiles."""
        width = self.tile[1]
        return [self._filled(block[:, start : start + width]) for start in range(0, block.shape[1], width)]

    def _filled(self, part: Pixels) -> Pixels:
        # tifffile fills tiles, too, but tells by the shape of the first one along which axis to predict
        missing = [side - size for side, size in zip(self.tile, part.shape[:2], strict=True)]
        return np.pad(part, [(0, size) for size in (*missing, 0)[: part.ndim]]) if any(missing) else part
