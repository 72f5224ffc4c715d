"""Batch conversion: an image of any size, upscaled into an OME-Zarr on disk.

A `ConversionJob` says what is wanted, `prepare` opens, checks and plans it without reading a pixel, and `run` does it:
shard by shard, each computed from its tiles while the one before is written, then the pyramid. The unit of work is one
whole shard; no Dask graph is involved.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.axes import check_axes
from napari_mgbpv2.errors import Cancelled, ImageError
from napari_mgbpv2.sources import ImageSource, open_source
from napari_mgbpv2.tiling import Span
from napari_mgbpv2.upscaling import UpscalePlan, plan_upscale

if TYPE_CHECKING:
    from napari_mgbpv2.lazy import ComputeTile, TiledImage
    from napari_mgbpv2.ome_zarr import ImageLayout, OMEZarrWriter, Region
    from napari_mgbpv2.upscaling.choosing import Model

Progress = Callable[[int, int], None]
Asked = Callable[[], bool]

TILE_CACHE_BYTES = 2**30  # of tiles that lie across shards; beyond it, some are computed again
PROCESS_BYTES = 500 * 2**20  # Python with torch and zarr loaded
SMALL_SHARD, LARGE_SHARD = 1024, 2048  # side of what is computed and written at once, in pixels
MOST_SMALL_SHARDS = 4096  # of a plane; beyond it, fewer and larger files are easier on the file system
_NGFF_ORDER = "tczyx"


@dataclass(frozen=True)
class ConversionJob:
    """What to convert, and how.

    Attributes
    ----------
    source
        Path of an image, an array as `upscale` takes it, or an image that is open already.
    destination
        Path of the OME-Zarr to write.
    scale, model
        As `upscale` has them.
    options
        Further options of `upscale`, by name.
    overwrite
        Whether a Zarr that is at the destination may be replaced, once the new one is complete.
    levels
        Number of pyramid levels; by default until y and x are at most 256.
    series, level
        Which image of a file that holds several, and which resolution of a pyramid.
    """

    source: Any
    destination: Path
    scale: int | None = None
    model: Model | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    levels: int | None = None
    series: int = 0
    level: int = 0


@dataclass(frozen=True)
class Prepared:
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
    """

    job: ConversionJob
    source: ImageSource
    plan: UpscalePlan
    layout: ImageLayout

    @property
    def memory_bytes(self) -> int:
        """Memory that the process needs at its peak, estimated; independent of the image's size beyond a bound."""
        grid = self.plan.layout.grid
        core = grid.rows.tile * grid.columns.tile * self.plan.compute_tile.channels * 4
        shard = math.prod(self.layout.shard_shape())
        # tiles across one row of shards and the next, and the blended and the finished pixels of two shards
        carried = min(TILE_CACHE_BYTES, core * (2 * len(grid.columns) + 2))
        return PROCESS_BYTES + self.plan.tile_bytes + carried + 2 * shard * (4 + self.layout.dtype.itemsize)

    @property
    def disk_bytes(self) -> int:
        """Disk that the result needs at the most: all levels, before compression."""
        return self.layout.uncompressed_bytes


def convert(
    source: Any,
    destination: str | os.PathLike[str],
    *,
    scale: int | None = None,
    model: Model | None = None,
    overwrite: bool = False,
    levels: int | None = None,
    series: int = 0,
    level: int = 0,
    progress: Progress | None = None,
    cancelled: Asked | None = None,
    **options: Any,
) -> Path:
    """Upscale an image into an OME-Zarr on disk.

    Memory does not grow with the image. The destination appears at once when all of it is complete; an interrupted
    conversion leaves nothing there.

    Parameters
    ----------
    source
        Path of an image: TIFF, PNG, JPEG, Zarr, OME-Zarr and others, see `napari_mgbpv2.sources.open_source`. Or an
        array, as `upscale` takes it.
    destination
        The OME-Zarr to write, by custom ending in ``.ome.zarr``.
    scale, model
        As `upscale` has them.
    overwrite
        Replace a Zarr that is there, once the new one is complete. Nothing else is ever replaced.
    levels
        Number of pyramid levels; by default until y and x are at most 256.
    series, level
        Which image of a file that holds several, and which resolution of a pyramid.
    progress
        Called with the number of steps done and of all steps.
    cancelled
        Asked before each step; the conversion ends when it says so.
    **options
        ``axes``, ``noise``, ``seed``, ``tile``, ``overlap``, ``guard``, ``window``, ``value_range``, ``device`` and
        ``precision`` as `upscale` has them.

    Returns
    -------
    Path
        The destination, absolute.

    Raises
    ------
    SourceError
        The source is missing, damaged or of an unknown format.
    DestinationError
        Something is at the destination already, or it cannot be written.
    Cancelled
        ``cancelled`` said so.
    ImageError, ModelError, TilingError, DeviceError
        As `upscale` has them.
    """
    job = ConversionJob(source, Path(destination), scale, model, options, overwrite, levels, series, level)
    return run(prepare(job), progress, cancelled)


def prepare(job: ConversionJob) -> Prepared:
    """Open and check everything that a job needs; reads no pixel, writes nothing. Errors as `convert` has them."""
    source = _open(job)
    plan = plan_upscale(source.data, job.scale, model=job.model, **{**job.options, "axes": source.axes})
    return Prepared(job, source, plan, _layout(job, source, plan))


def run(prepared: Prepared, progress: Progress | None = None, cancelled: Asked | None = None) -> Path:
    """Convert.

    Parameters
    ----------
    prepared
        What `prepare` gives.
    progress
        Called with the number of steps done and of all: tiles, then shards of further pyramid levels.
    cancelled
        Asked before each step.

    Returns
    -------
    Path
        The destination, absolute.
    """
    from napari_mgbpv2.ome_zarr import OMEZarrWriter

    steps = _Steps(prepared, progress, cancelled)
    image = prepared.plan.tiled_image(cache_bytes=TILE_CACHE_BYTES, keep_served=False, around=steps.around_tile)
    with OMEZarrWriter(prepared.job.destination, prepared.layout, overwrite=prepared.job.overwrite) as writer:
        _write_full_resolution(writer, image, prepared)
        for level in range(1, len(prepared.layout.level_shapes())):
            writer.build_level(level, cancelled=cancelled, on_shard=lambda _: steps.one_more())
        return writer.commit()


def _write_full_resolution(writer: OMEZarrWriter, image: TiledImage, prepared: Prepared) -> None:
    """Compute shard after shard; one is written while the next one is computed."""
    written: Future[None] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="mgbpv2-writer") as pool:
        for region in writer.shards():
            pixels = _region(image, region, prepared)
            if written is not None:
                written.result()
            written = pool.submit(writer.write, region, pixels)
        if written is not None:
            written.result()


def _region(image: TiledImage, region: Region, prepared: Prepared) -> npt.NDArray[Any]:
    """Compute a region of the result, which has its axes in another order than the source may have."""
    axes, wanted = prepared.plan.axes.replace("s", "c"), prepared.layout.axes
    spans = [Span(region[wanted.index(axis)].start, region[wanted.index(axis)].stop) for axis in axes]
    return np.ascontiguousarray(image.region(spans).transpose([axes.index(axis) for axis in wanted]))


class _Steps:
    """Counts what is done of a conversion, tells of it, and asks whether to go on."""

    def __init__(self, prepared: Prepared, progress: Progress | None, cancelled: Asked | None) -> None:
        layout = prepared.layout
        further = range(1, len(layout.level_shapes()))
        self.total = prepared.plan.layout.tiles + sum(math.prod(layout.shard_counts(level)) for level in further)
        self.done = 0
        self._destination = prepared.job.destination
        self._progress, self._cancelled = progress, cancelled

    def one_more(self) -> None:
        self.done = min(self.done + 1, self.total)  # a tile may be computed twice where the cache is too small
        if self._progress is not None:
            self._progress(self.done, self.total)

    def around_tile(self, compute: ComputeTile) -> ComputeTile:
        def counted(plane: tuple[int, ...], group: int, row: int, column: int) -> npt.NDArray[np.float32]:
            if self._cancelled is not None and self._cancelled():
                raise Cancelled(f"{self._destination}: stopped before the image was complete; nothing is left of it.")
            pixels = compute(plane, group, row, column)
            self.one_more()
            return pixels

        return counted


def _open(job: ConversionJob) -> ImageSource:
    axes = job.options.get("axes")
    source = job.source
    if isinstance(source, (str, os.PathLike)):
        source = open_source(source, series=job.series, level=job.level)
    if isinstance(source, ImageSource):
        if axes is not None:
            axes = check_axes(axes, source.data.shape)
            source = replace(source, axes=axes, **_renamed(source, axes))
        return source
    from napari_mgbpv2.upscaling import image_and_axes

    image, axes = image_and_axes(job.source, axes)
    placed = [axis for axis in axes if axis not in "cs"]
    return ImageSource(
        data=image,
        axes=axes,
        pixel_size=dict.fromkeys(placed, 1.0),
        units=dict.fromkeys(placed),
        translation=dict.fromkeys(placed, 0.0),
        channel_names=None,
        channel_colors=None,
        path=job.destination.name,
        kind="array",
    )


def _renamed(source: ImageSource, axes: str) -> dict[str, Any]:
    """Return pixel sizes, units and channels of a source whose axes somebody knows better, where they still apply."""
    placed = [axis for axis in axes if axis not in "cs"]
    same_channels = "c" in axes and source.axes.find("c") == axes.index("c")
    return {
        "pixel_size": {axis: source.pixel_size.get(axis, 1.0) for axis in placed},
        "units": {axis: source.units.get(axis) for axis in placed},
        "translation": {axis: source.translation.get(axis, 0.0) for axis in placed},
        "channel_names": source.channel_names if same_channels else None,
        "channel_colors": source.channel_colors if same_channels else None,
    }


def _layout(job: ConversionJob, source: ImageSource, plan: UpscalePlan) -> ImageLayout:
    from napari_mgbpv2.ome_zarr import ImageLayout

    if {"c", "s"} <= set(plan.axes):
        raise ImageError(f"{source.path}: has channels and colour samples; OME-Zarr has one axis for both: pick one.")
    axes = plan.axes.replace("s", "c")
    if unknown := set(axes) - set(_NGFF_ORDER):
        raise ImageError(
            f"{source.path}: has the axes {plan.axes!r}; OME-Zarr takes t, c, z, y and x, not {', '.join(unknown)}."
        )
    wanted = "".join(sorted(axes, key=_NGFF_ORDER.index))
    sizes = dict(zip(axes, plan.layout.shape, strict=True))
    factor = {axis: plan.scale if axis in "yx" else 1 for axis in wanted}
    pixel_size = {axis: source.pixel_size.get(axis, 1.0) for axis in wanted}
    # The corner of the image stays where it is, so the centre of its first pixel moves by half of what the pixel loses.
    translation = {
        axis: source.translation.get(axis, 0.0) + pixel_size[axis] * (1 / factor[axis] - 1) / 2 for axis in wanted
    }
    return ImageLayout(
        shape=tuple(sizes[axis] for axis in wanted),
        dtype=plan.layout.dtype,
        axes=wanted,
        pixel_size=tuple(pixel_size[axis] / factor[axis] for axis in wanted),
        units=tuple(source.units.get(axis) for axis in wanted),
        translation=tuple(translation[axis] for axis in wanted),
        name=source.name,
        channel_names=source.channel_names if "c" in plan.axes else None,
        channel_colors=source.channel_colors if "c" in plan.axes else None,
        provenance=_provenance(job, source, plan),
        shard=_shard(sizes["y"], sizes["x"]),
        colour="s" in plan.axes and sizes["c"] in (3, 4),
        levels=job.levels,
    )


def _shard(height: int, width: int) -> int:
    """Side of a shard: small ones need less memory and lose less when work is interrupted."""
    small = -(-height // SMALL_SHARD) * -(-width // SMALL_SHARD)
    return SMALL_SHARD if small <= MOST_SMALL_SHARDS else LARGE_SHARD


def _provenance(job: ConversionJob, source: ImageSource, plan: UpscalePlan) -> dict[str, Any]:
    grid, compute = plan.layout.grid, plan.compute_tile
    return {
        "source": source.path,
        "source_kind": source.kind,
        "scale": plan.scale,
        "model": plan.model,
        "model_sha256": plan.model_hash,
        "tile": [grid.rows.tile, grid.columns.tile],
        "guard": plan.guard,
        "window": grid.rows.window,
        "noise": compute.noise,
        "seed": compute.seed,
        "value_range": [plan.values.low, plan.values.high],
        "precision": compute.precision or "float32",
        "versions": {name: version(name) for name in ("napari-mgbpv2", "torch", "zarr")},
    }
