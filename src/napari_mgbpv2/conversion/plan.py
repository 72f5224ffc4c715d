"""Preparing a conversion: the source is opened, the work planned, the result laid out, and all of it checked."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.addresses import Destination, display_path, strip_trailing_slashes, url_name
from napari_mgbpv2.conversion.destinations import check_ending
from napari_mgbpv2.conversion.job import ConversionJob, ConversionPlan
from napari_mgbpv2.errors import DestinationError, ImageError
from napari_mgbpv2.imaging.axes import AXIS_ORDER
from napari_mgbpv2.io.fingerprints import recorded_source, without_folders
from napari_mgbpv2.io.readers import ImageSource, open_source, source_without_metadata, with_metadata
from napari_mgbpv2.upscaling import UpscalePlan, plan_upscale
from napari_mgbpv2.upscaling.ranges import sampled_extremes

if TYPE_CHECKING:
    from napari_mgbpv2.io.writers.ome_zarr import ImageLayout

SMALL_SHARD, LARGE_SHARD = 1024, 2048  # side of what is computed and written at once, in pixels
MOST_SMALL_SHARDS = 4096  # of a plane; beyond it, fewer and larger files are easier on the file system
TIFF_TILE_UNIT = 16  # pixels


def prepare(job: ConversionJob) -> ConversionPlan:
    """Open and check everything that a job needs; writes nothing. Errors as `convert` has them.

    Reads no pixel but a sample, where the values of black and white are not given and the model needs them.
    """
    check_ending(job.destination)
    with _naming(job.source):
        source = _open(job)
        identity = source.fingerprint()  # before anything is read of it
        measure = partial(sampled_extremes, source.data, source.axes)
        plan = plan_upscale(source.data, replace(job.options, axes=source.axes), measure=measure)
        prepared = ConversionPlan(job, source, plan, _layout(job, source, plan, identity), identity)
    _check_apart(prepared)
    return prepared


@contextmanager
def _naming(source: Any) -> Iterator[None]:
    """Say which file an error is about: there may be many."""
    try:
        yield
    except (DestinationError, ImageError) as error:
        path = display_path(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "path", "")
        if not path or path in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


def _check_apart(prepared: ConversionPlan) -> None:
    """Refuse a destination that would replace the source, or lie within it.

    Raises
    ------
    DestinationError
        It would.
    """
    asked, identity = prepared.job.destination, prepared.identity
    if not isinstance(asked, Path):
        url = strip_trailing_slashes(prepared.source.path)
        if f"{asked}/".startswith(f"{url}/") or f"{url}/".startswith(f"{asked}/"):
            raise DestinationError(f"{asked} is, holds, or lies within the source {url}: choose another place")
        return
    destination = Path(os.path.realpath(asked))
    for file in (prepared.source.path, *identity["files"]) if "files" in identity else ():
        source = Path(os.path.realpath(file))
        if destination == source or destination in source.parents or source in destination.parents:
            raise DestinationError(
                f"{asked} is, holds, or lies within the source {prepared.source.path}: choose another place"
            )


def _open(job: ConversionJob) -> ImageSource:
    source, axes = job.source, job.options.axes
    described: dict[str, Any] = {"axes": axes, "pixel_size": job.pixel_size, "unit": job.unit}
    if isinstance(source, (str, os.PathLike)):
        return open_source(source, series=job.series, level=job.level, missing=job.missing, **described)
    if not isinstance(source, ImageSource):
        from napari_mgbpv2.upscaling import image_and_axes

        image, axes = image_and_axes(job.source, axes)
        source = source_without_metadata(image, axes, _name_of(job.destination), "array")
        described["axes"] = None
    return with_metadata(source, **described)


def _name_of(destination: Destination) -> str:
    return destination.name if isinstance(destination, Path) else url_name(destination)


def _layout(job: ConversionJob, source: ImageSource, plan: UpscalePlan, identity: Mapping[str, Any]) -> ImageLayout:
    from napari_mgbpv2.io.writers.ome_zarr import ImageLayout

    if job.makes_tiff:
        _check_tiff(job, plan)
    if {"c", "s"} <= set(plan.axes):
        raise ImageError(f"{source.path}: has channels and colour samples; OME-Zarr has one axis for both: pick one.")
    axes = plan.axes.replace("s", "c")
    if unknown := set(axes) - set(AXIS_ORDER):
        raise ImageError(
            f"{source.path}: has the axes {plan.axes!r}; OME-Zarr takes t, c, z, y and x, not {', '.join(unknown)}: "
            "give the axes with axes=."
        )
    wanted = "".join(sorted(axes, key=AXIS_ORDER.index))
    sizes = dict(zip(axes, plan.layout.shape, strict=True))
    factor = {axis: plan.scale if axis in "yx" else 1 for axis in wanted}
    pixel_size = {axis: source.pixel_size.get(axis, 1.0) for axis in wanted}
    # The corner of the image stays where it is, so the centre of its first pixel moves by half of what the pixel loses.
    translation = {
        axis: source.translation.get(axis, 0.0) + pixel_size[axis] * (1 / factor[axis] - 1) / 2 for axis in wanted
    }
    shard = _shard(sizes["y"], sizes["x"], job.chunk) if job.shard is None else job.shard
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
        provenance=_provenance(job, source, plan, identity, shard),
        chunk=job.chunk,
        shard=shard,
        colour="s" in plan.axes and sizes["c"] in (2, 3, 4),
        interleaved="s" in plan.axes,
        levels=job.levels,
        format=job.format,
        codec=job.codec,
    )


def _check_tiff(job: ConversionJob, plan: UpscalePlan) -> None:
    """Say now, not after hours, that there can be no such TIFF."""
    from napari_mgbpv2.io.writers.ome_tiff import tiff_dtype

    tiff_dtype(plan.layout.dtype)
    if job.chunk % TIFF_TILE_UNIT:
        raise DestinationError(
            f"chunks of {job.chunk} px cannot be the tiles of a TIFF: choose a multiple of {TIFF_TILE_UNIT}"
        )
    if job.format != "0.5":
        raise DestinationError(f"{job.destination} is a TIFF by its name: it has no format {job.format!r}")


def _shard(height: int, width: int, chunk: int) -> int:
    """Side of a shard: small ones need less memory and lose less when work is interrupted."""
    small = -(-height // SMALL_SHARD) * -(-width // SMALL_SHARD)
    wanted = SMALL_SHARD if small <= MOST_SMALL_SHARDS else LARGE_SHARD
    return -(-wanted // chunk) * chunk if chunk > 0 else wanted


def _provenance(
    job: ConversionJob, source: ImageSource, plan: UpscalePlan, identity: Mapping[str, Any], shard: int
) -> dict[str, Any]:
    """Say how the image comes to be: for people, and to know whether unfinished work may be gone on with."""
    grid, compute = plan.layout.grid, plan.compute_tile
    told = {
        "source": source.path if job.record_paths else recorded_source(source.path),
        "source_kind": source.kind,
        "source_identity": identity if job.record_paths else without_folders(identity),
        "source_axes": source.axes,
        "scale": plan.scale,
        "model": plan.model,
        "model_sha256": plan.model_hash,
        "tile": [grid.rows.tile, grid.columns.tile],
        "tiles": [len(grid.rows), len(grid.columns)],
        "overlap": [grid.rows.overlap, grid.columns.overlap],
        "guard": plan.guard,
        "window": grid.rows.window,
        "noise": compute.noise,
        "seed": compute.seed,
        "value_range": [plan.values.low, plan.values.high],
        "precision": compute.precision or "float32",
        "device": plan.device.partition(":")[0],
        "output": {
            "format": "ome-tiff" if job.makes_tiff else job.format,
            "levels": job.levels,
            "chunk": job.chunk,
            "shard": shard,
            "codec": job.codec,
            "shape": list(plan.layout.shape),
            "dtype": str(plan.layout.dtype),
            "pixel_size": source.pixel_size,
            "units": source.units,
            "translation": source.translation,
        },
        "versions": {name: version(name) for name in ("napari-mgbpv2", "torch", "zarr")},
    }
    if source.icc_profile is not None:
        # OME-Zarr has no place of its own for a profile; an OME-TIFF holds it in a tag
        told["icc_profile"] = (
            f"sha256:{hashlib.sha256(source.icc_profile).hexdigest()}"
            if job.makes_tiff
            else base64.b64encode(source.icc_profile).decode("ascii")
        )
    plain: dict[str, Any] = json.loads(json.dumps(told))  # as it will be read again
    return plain
