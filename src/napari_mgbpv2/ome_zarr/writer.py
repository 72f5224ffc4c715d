"""The writer: whole shards in, a pyramid of stored levels, a commit at the end.

One call writes one whole shard. Part of a shard would be read, changed and written back, and two threads that did so
to one shard would lose each other's pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec

from napari_mgbpv2.errors import Cancelled, DestinationError
from napari_mgbpv2.ome_zarr.layout import ImageLayout, Region
from napari_mgbpv2.ome_zarr.place import MARKER, Place, flush, telling_os_errors


class OMEZarrWriter:
    """Writes one OME-Zarr image: all shards of level 0, `build_level` for each further level, then `commit`.

    A context manager: leaving it without `commit`, for whatever reason, leaves nothing behind. Several threads
    may write different shards at once.

    Parameters
    ----------
    destination
        Directory to appear when all is written; its parent is created if missing.
    layout
        What is written.
    overwrite
        Replace a Zarr store that is there already, once the new one is complete.

    Raises
    ------
    DestinationError
        If the destination exists (and, with `overwrite`, is anything but a Zarr store), is being written by
        somebody else, or cannot be written.
    """

    def __init__(self, destination: str | os.PathLike[str], layout: ImageLayout, *, overwrite: bool = False) -> None:
        self.layout = layout
        self._place = Place(destination, overwrite=overwrite)
        self._open = True
        self._failure = ""  # why the disk ended the work
        self._writing = 0  # calls under way
        self._changed = Condition()  # guards the three above and the ranges
        self._ranges: dict[int, tuple[float, float]] = {}  # lowest and highest value of each channel of level 0
        self._written: list[set[tuple[int, ...]]] = [set() for _ in layout.level_shapes()]
        try:
            with self._aborting_on_os_errors():
                self._group, self._arrays = _create(self._place.partial, layout)
        except BaseException:
            self.abort()
            raise

    def shards(self, level: int = 0) -> Iterator[Region]:
        """Regions of all whole shards of a level in raster order, generated as they are asked for."""
        return self.layout.shards(level)

    def write(self, region: Region, data: npt.NDArray[Any], level: int = 0) -> None:
        """Write one whole shard, down to the disk.

        Parameters
        ----------
        region
            One of `shards`.
        data
            Its pixels, of the region's shape and the layout's dtype.
        level
            Pyramid level.

        Raises
        ------
        DestinationError
            If the disk is full or fails. The unfinished image is then removed and the writer closed.
        ValueError
            If the region is not one whole shard, the data does not fit it, or the writer is closed.
        """
        index = self.layout.shard_index(region, level)
        shape = tuple(part.stop - part.start for part in region)
        if data.shape != shape or data.dtype.newbyteorder("=") != self.layout.dtype:
            raise ValueError(f"the shard is {shape} {self.layout.dtype}, its data {data.shape} {data.dtype}")
        array = self._arrays[level]
        file = self._place.partial / str(level) / array.metadata.encode_chunk_key(index)

        def store() -> None:
            array[region] = data
            flush(file)  # zarr leaves the bytes to the system

        # Ctrl-C ends the wait, not zarr's own threads: leaving the pool waits for them, so none writes after an abort.
        with self._aborting_on_os_errors(), self._under_way(), ThreadPoolExecutor(1) as pool:
            pool.submit(store).result()
            if level == 0:
                self._extend_ranges(region, data)
            self._written[level].add(index)

    def build_level(
        self,
        level: int,
        *,
        cancelled: Callable[[], bool] | None = None,
        on_shard: Callable[[Region], None] | None = None,
    ) -> None:
        """Fill a level with the 2 x 2 means of the stored level before it, shard by shard.

        Parameters
        ----------
        level
            1 or more; the level before it is complete.
        cancelled
            Asked before each shard; True stops the work.
        on_shard
            Called with the region of each shard that has been written.

        Raises
        ------
        Cancelled
            If `cancelled` says so.
        DestinationError
            If the disk is full or fails. The unfinished image is then removed and the writer closed.
        ValueError
            If there is no such level, the one before it is not complete, or the writer is closed.
        """
        if not 1 <= level < len(self._arrays):
            raise ValueError(f"level {level} is not one of 1 to {len(self._arrays) - 1}")
        self._check_complete(level - 1)
        source = self._arrays[level - 1]
        for region in self.shards(level):
            if cancelled is not None and cancelled():
                raise Cancelled(f"{self._place.destination}: stopped before the image was complete")
            parents = (
                slice(2 * part.start, min(2 * part.stop, size))
                for part, size in zip(region[-2:], source.shape[-2:], strict=True)
            )
            with self._aborting_on_os_errors(), self._under_way():
                pixels = np.asarray(source[(*region[:-2], *parents)])
            self.write(region, halve(pixels), level)
            if on_shard is not None:
                on_shard(region)

    def commit(self) -> Path:
        """Add the metadata, validate, and let the finished image appear at its destination.

        Returns
        -------
        Path
            The destination, absolute.

        Raises
        ------
        DestinationError
            If the disk fails, or something has appeared at the destination meanwhile. An old image that was to be
            replaced is still there then.
        ValueError
            If a level is not complete, or the writer is closed.
        """
        from yaozarrs import validate_zarr_store

        for level in range(len(self._arrays)):
            self._check_complete(level)
        with self._aborting_on_os_errors(), self._under_way():
            self._group.attrs["ome"] = self.layout.ome_metadata(self._ranges)
            validate_zarr_store(self._place.partial)
            for array in self._arrays:
                flush(self._place.partial / array.path / "zarr.json")
            flush(self._place.partial / "zarr.json")
            self._place.publish()
            self._open = False
        return self._place.destination

    def abort(self) -> None:
        """Remove the unfinished image and close the writer; does nothing once it is closed."""
        with self._changed:
            was_open, self._open = self._open, False
            self._changed.wait_for(lambda: not self._writing)
            if was_open:
                self._place.give_up()

    def __enter__(self) -> OMEZarrWriter:
        """Use the writer until it is left."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Abort what has not been committed."""
        self.abort()

    def _check_complete(self, level: int) -> None:
        done, count = len(self._written[level]), math.prod(self.layout.shard_counts(level))
        if done < count:
            raise ValueError(f"level {level} is not complete: {done} of its {count} shards are written")

    def _extend_ranges(self, region: Region, data: npt.NDArray[Any]) -> None:
        if "c" not in self.layout.axes or self.layout.colour:  # colours are shown as they are
            return
        values = data[np.isfinite(data)] if data.dtype.kind == "f" else data
        if values.size:
            channel = region[self.layout.axes.index("c")].start  # a shard holds one channel
            low, high = values.min().item(), values.max().item()
            with self._changed:
                known_low, known_high = self._ranges.get(channel, (low, high))
                self._ranges[channel] = min(low, known_low), max(high, known_high)

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """Keep `abort` waiting; refuse to begin once the writer is closed."""
        with self._changed:
            if self._failure:  # in another thread
                raise DestinationError(self._failure)
            if not self._open:
                raise ValueError(f"the writer of {self._place.destination} is closed")
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    @contextmanager
    def _aborting_on_os_errors(self) -> Iterator[None]:
        try:
            with telling_os_errors(self._place.destination):
                yield
        except DestinationError as error:
            with self._changed:
                self._failure = self._failure or str(error)
            self.abort()
            raise


def halve(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mean of each 2 x 2 pixels over the last two axes; at an odd edge, of those that exist.

    Integers: the exact mean, halves rounded up. Floats: summed in float64 for float64, else float32; NaN spreads.

    Parameters
    ----------
    image
        (..., y, x) of an integer or float type.

    Returns
    -------
    ndarray
        (..., ceil(y / 2), ceil(x / 2)) of the same type.
    """
    height, width = image.shape[-2:]
    if height % 2 or width % 2:  # a row or column given twice leaves the mean of the existing ones
        image = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(0, height % 2), (0, width % 2)], mode="edge")
    first, *others = (image[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
    if image.dtype.kind == "f":
        wide = np.promote_types(image.dtype, np.float32)
        with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN, and that is meant
            # quarters are exact, and their sum cannot overflow
            total: npt.NDArray[Any] = np.multiply(first, 0.25, dtype=wide)
            for other in others:
                total += np.multiply(other, 0.25, dtype=wide)
        return total.astype(image.dtype, copy=False)
    quarters: npt.NDArray[Any] = first >> 2
    rest = first & 3  # a value is 4 quarters + rest, and no sum of these leaves the type
    for other in others:
        quarters += other >> 2
        rest += other & 3
    quarters += (rest + 2) >> 2
    return quarters


def _create(store: Path, layout: ImageLayout) -> tuple[zarr.Group, list[zarr.Array[Any]]]:
    group = zarr.create_group(store, zarr_format=3, attributes={MARKER: dict(layout.provenance)})
    arrays = [
        group.create_array(
            str(level),
            shape=shape,
            dtype=layout.dtype,
            chunks=layout.chunk_shape(level),
            shards=layout.shard_shape(level),
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
            dimension_names=list(layout.axes),
            fill_value=0,
            config={"write_empty_chunks": True},  # a shard without a file is one that was never written
        )
        for level, shape in enumerate(layout.level_shapes())
    ]
    return group, arrays
