"""What is wanted of a conversion, and the same once it has been checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.addresses import Destination
from napari_mgbpv2.conversion.destinations import TIFF_ENDINGS
from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.image import ReadingMemory, reading_memory
from napari_mgbpv2.io.readers import ImageSource
from napari_mgbpv2.tiling.grid import CONSTANT_TILE_CACHE_SIZE
from napari_mgbpv2.tiling.shard_order import ShardOrder, plan_shard_order
from napari_mgbpv2.upscaling import UpscaleOptions, UpscalePlan

if TYPE_CHECKING:
    from napari_mgbpv2.io.writers.ome_zarr import ImageLayout

Progress = Callable[[int, int], None]
CancellationCallback = Callable[[], bool]

TILE_CACHE_BYTES = 256 * 2**20  # of tiles for shards to come; beyond it, some are computed again
PROCESS_BYTES = 500 * 2**20  # Python with torch and zarr loaded
_READ_AROUND = 32  # source pixels beside those of a tile: the reach of resampling, and of what fills pixels
IN_FLIGHT = 3  # shards at a time: one is read or blended and one is written while the network is busy with another


@dataclass(frozen=True)
class ConversionJob:
    """What to convert, and how.

    Attributes
    ----------
    source
        Path or URL of an image, an array as `upscale` takes it, or an image that is open already.
    destination
        Path or address (s3://...) of the OME-Zarr to write; of a path that ends in ``.tif`` or ``.tiff``, a tiled
        OME-TIFF with a pyramid.
    options
        How the image is upscaled.
    overwrite
        Whether an image that is at the destination may be replaced, once the new one is complete, and unfinished work
        with other settings dropped.
    resume
        Whether to go on with what an earlier run of the same job has left unfinished. What is complete already is not
        done again.
    levels
        Number of pyramid levels; by default until y and x are at most 256.
    series, level
        Which image of a file that holds several, and which resolution of a pyramid.
    pixel_size, unit
        Of the source, where the file does not say or somebody knows better: one number for y and x, or one an axis.
    missing
        What is done about planes that an OME-TIFF announces and that are not there: "refuse", or "blank".
    format
        Of a Zarr: "0.5" or "0.4" of OME-Zarr, or "zarr", a plain array.
    chunk, shard
        Side in pixels of what is compressed and read at once, and of what is one file, computed and written at once. By
        default 512, and 1024 or, for huge images, 2048.
    codec
        "zstd" (fast), "zstd-9" (small), "lz4" (fastest) or "none".
    record_paths
        Whether the result says the whole paths of its source's files; by default their names alone.
    """

    source: Any
    destination: Destination
    options: UpscaleOptions = field(default_factory=UpscaleOptions)
    overwrite: bool = False
    resume: bool = False
    levels: int | None = None
    series: int = 0
    level: int = 0
    pixel_size: float | Mapping[str, float] | None = None
    unit: str | Mapping[str, str] | None = None
    missing: str = "refuse"
    format: str = "0.5"
    chunk: int = 512
    shard: int | None = None
    codec: str = "zstd"
    record_paths: bool = False

    @property
    def makes_tiff(self) -> bool:
        """Whether the result is a TIFF."""
        return str(self.destination).lower().endswith(TIFF_ENDINGS)


@dataclass(frozen=True)
class ConversionPlan:
    """A job that has been checked: what will be done, and what it will take.

    Attributes
    ----------
    job
        The job.
    source
        The opened image.
    plan
        How it is upscaled.
    layout
        What is written.
    identity
        What tells the source from a later state of it, as `ImageSource.fingerprint` gives it.
    """

    job: ConversionJob
    source: ImageSource
    plan: UpscalePlan
    layout: ImageLayout
    identity: Mapping[str, Any]

    def check_source(self) -> None:
        """Refuse a source that has changed since the conversion was prepared: the result would be of two images.

        Raises
        ------
        SourceError
            It has, or it is missing.
        """
        from napari_mgbpv2.io.writers.ome_zarr import differences

        if different := differences(self.identity, self.source.fingerprint()):
            raise SourceError(
                f"{self.source.path}: was changed while it was converted ({different}); the result would be of two "
                "images and was not published: convert it again, and overwrite what is there."
            )

    @cached_property
    def shard_order(self) -> ShardOrder:
        """The order in which shards are made."""
        height, width = self.layout.shard_shape()[-2:]
        pixels = TILE_CACHE_BYTES // self._pixel_bytes
        return plan_shard_order(self.layout.shard_counts(), (height, width), self.plan.layout.grid, pixels)

    @property
    def memory_bytes(self) -> int:
        """Memory that a process needs at its peak, estimated; independent of the image's size beyond a bound."""
        grid, shard = self.plan.layout.grid, math.prod(self.layout.shard_shape())
        carried = min(TILE_CACHE_BYTES, self.shard_order.carried_pixels * self._pixel_bytes)
        kept = IN_FLIGHT + CONSTANT_TILE_CACHE_SIZE  # before they are cut, and those of one colour
        tiles = kept * grid.rows.tile * grid.columns.tile * self._pixel_bytes
        shards = IN_FLIGHT * shard * (4 + self.layout.dtype.itemsize)  # blended, and finished
        reading = self._reading
        return PROCESS_BYTES + max(reading.first, reading.steady + self.plan.tile_bytes + carried + tiles + shards)

    @property
    def _reading(self) -> ReadingMemory:
        """Memory that reading the source takes."""
        grid, axes, data = self.plan.layout.grid, self.plan.axes, self.source.data
        sides = {"y": grid.rows.tile, "x": grid.columns.tile}
        shape = [int(size) for size in data.shape]
        window = [
            min(size, -(-sides[axis] // self.plan.scale) + 2 * _READ_AROUND)
            if axis in sides
            else size
            if axis == "s"
            else 1
            for axis, size in zip(axes, shape, strict=True)
        ]
        return reading_memory(data, window, IN_FLIGHT)

    @property
    def disk_bytes(self) -> int:
        """Disk that the result needs at the most: all levels, before compression; twice that for a TIFF."""
        return self.layout.uncompressed_bytes * (2 if self.job.makes_tiff else 1)

    @property
    def _pixel_bytes(self) -> int:
        """Of a pixel of a tile: all samples in float32."""
        return self.plan.compute_tile.channels * 4
