"""Batch conversion: upscale an image of any size into an OME-Zarr or OME-TIFF.

A `ConversionJob` holds the request. `prepare` opens and checks the source and returns a `ConversionPlan`. `run`
executes the plan: it computes level 0 shard by shard and builds the coarser levels as their inputs become ready. The
unit of work is one shard, computed by one thread or one worker of a cluster. No Dask graph is involved.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.addresses import Destination, absolute_path, parse_destination
from napari_mgbpv2.conversion.job import CancellationCallback, ConversionJob, ConversionPlan, Progress
from napari_mgbpv2.conversion.local import run_locally
from napari_mgbpv2.conversion.oom import run_with_oom_fallback
from napari_mgbpv2.conversion.plan import prepare
from napari_mgbpv2.conversion.progress import ProgressTracker, Report, ReportCallback
from napari_mgbpv2.conversion.publishing import comparable, is_already_complete, write_tiff
from napari_mgbpv2.conversion.shards import ShardWork
from napari_mgbpv2.upscaling import UpscaleOptions

if TYPE_CHECKING:
    from distributed import Client

    from napari_mgbpv2.upscaling.options import Model

__all__ = [
    "CancellationCallback",
    "ConversionJob",
    "ConversionPlan",
    "Progress",
    "Report",
    "ReportCallback",
    "convert",
    "prepare",
    "run",
]


def convert(
    source: Any,
    destination: str | os.PathLike[str],
    *,
    scale: int | None = None,
    model: Model | None = None,
    axes: str | None = None,
    noise: float = 0.0,
    seed: int = 0,
    tile: int | None = None,
    overlap: int | None = None,
    guard: int | None = None,
    window: str = "hamming",
    value_range: tuple[float, float] | None = None,
    device: str | None = None,
    precision: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    levels: int | None = None,
    series: int = 0,
    level: int = 0,
    pixel_size: float | Mapping[str, float] | None = None,
    unit: str | Mapping[str, str] | None = None,
    missing: str = "refuse",
    format: str = "0.5",
    chunk: int = 512,
    shard: int | None = None,
    codec: str = "zstd",
    record_paths: bool = False,
    progress: Progress | None = None,
    cancelled: CancellationCallback | None = None,
    client: Client | None = None,
) -> Destination:
    """Upscale an image into an OME-Zarr, on a disk or in an object store, or into an OME-TIFF.

    Memory does not grow with the image. The destination appears at once when all of it is complete. What an interrupted
    conversion has done is kept beside it, and ``resume`` goes on with that, to the same bytes.

    Parameters
    ----------
    source
        Path or URL of an image: TIFF, PNG, JPEG, Zarr, OME-Zarr and others, see
        `napari_mgbpv2.io.readers.open_source`. Or an array, as `upscale` takes it.
    destination
        The OME-Zarr to write, by custom ending in ``.ome.zarr``; also in an object store, ``s3://bucket/name.ome.zarr``.
        If it ends in ``.tif`` or ``.tiff``, a tiled OME-TIFF.
    scale, model, axes, noise, seed, tile, overlap, guard, window, value_range, device, precision
        The options of `upscale`, with the same meanings and defaults.
    overwrite
        Replace an image that is there, once the new one is complete. What a conversion with the same settings has left
        unfinished is gone on with, other unfinished work is dropped. Nothing else is ever replaced, and in an object
        store no image either.
    resume
        Go on with what an earlier conversion of the same source with the same settings has left unfinished. Where it is
        complete, and all of it is there, there is nothing to do; where there is none, it begins. With ``overwrite``,
        what has other settings is replaced instead of refused.
    levels
        Number of pyramid levels; by default until y and x are at most 256.
    series, level
        Which image of a file that holds several, and which resolution of a pyramid.
    pixel_size, unit
        Of the source, if its file does not state them or states them wrongly: one number for y and x, or one per axis.
    missing
        What happens if an OME-TIFF announces planes that are missing: "refuse", or "blank" to fill them with zeros.
    format
        Of a Zarr: "0.5" or "0.4" of OME-Zarr, or "zarr", a plain array.
    chunk, shard
        Side in pixels of a chunk, which is compressed and read as a whole, and of a shard, which is one file. By
        default 512, and 1024 or, for very large images, 2048.
    codec
        "zstd" (fast), "zstd-9" (small), "lz4" (fastest) or "none".
    record_paths
        Whether the result records the absolute paths of the source's files; by default their names, sizes and
        modification times only. Of an address, it records scheme, host and path.
    progress
        Called with the number of steps done and of all steps.
    cancelled
        Called before each step; the conversion stops when it returns True.
    client
        A client of `distributed`, whose workers share the work. Workers that have another version of this package or
        another model file, or do not see the source and the destination, are refused with a warning; the others work.

    Returns
    -------
    Path or str
        The destination: absolute, or its address.

    Raises
    ------
    SourceError
        The source is missing, damaged or of an unknown format.
    DestinationError
        Something is at the destination already, it cannot be written, or there is unfinished work that is not to be
        resumed, or is that of another job.
    Cancelled
        ``cancelled`` said so.
    ClusterError
        The cluster has no workers that can do the work, they died again and again, or the scheduler has ended.
    OutOfMemory
        There is not enough memory, even for smaller tiles. They are tried, with a warning, where nothing is lost by it.
    ImageError, ModelError, TilingError, DeviceError
        As `upscale` has them.
    """
    options = UpscaleOptions(
        scale=scale,
        model=model,
        axes=axes,
        noise=noise,
        seed=seed,
        tile=tile,
        overlap=overlap,
        guard=guard,
        window=window,
        value_range=value_range,
        device=device,
        precision=precision,
    )
    job = ConversionJob(
        source=source,
        destination=parse_destination(destination),
        options=options,
        overwrite=overwrite,
        resume=resume,
        levels=levels,
        series=series,
        level=level,
        pixel_size=pixel_size,
        unit=unit,
        missing=missing,
        format=format,
        chunk=chunk,
        shard=shard,
        codec=codec,
        record_paths=record_paths,
    )

    def note(sentence: str) -> None:
        warnings.warn(sentence, RuntimeWarning, stacklevel=4)

    def attempt(prepared: ConversionPlan) -> Destination:
        return run(prepared, progress, cancelled, client=client, note=note)

    prepared = prepare(job)
    for said in (*prepared.source.notes, *prepared.plan.notes):
        warnings.warn(f"{prepared.source.path}: {said}", UserWarning, stacklevel=2)
    run_with_oom_fallback(prepared, attempt, note)
    return absolute_path(job.destination)


def run(
    prepared: ConversionPlan,
    progress: Progress | None = None,
    cancelled: CancellationCallback | None = None,
    *,
    client: Client | None = None,
    tell: ReportCallback | None = None,
    note: Callable[[str], None] | None = None,
) -> Destination:
    """Convert.

    Parameters
    ----------
    prepared
        What `prepare` gives.
    progress
        Called with the number of steps done and of all: tiles, and shards of further pyramid levels.
    cancelled
        Called before each step; the conversion stops when it returns True.
    client
        As `convert` has it.
    tell
        Called with a `Report` after each step.
    note
        Called with a sentence where something has to be waited for before the work begins, and for each worker of a
        cluster that cannot be used. By default, the latter are warnings.

    Returns
    -------
    Path or str
        The destination: absolute, or its address.
    """
    from napari_mgbpv2.io.writers.ome_zarr import OMEZarrWriter

    job, layout = prepared.job, prepared.layout
    if job.resume and is_already_complete(prepared):
        return absolute_path(job.destination)
    with OMEZarrWriter(
        job.destination,
        layout,
        overwrite=job.overwrite,
        job=comparable(layout.provenance),
        resume=job.resume,
        make_file=partial(write_tiff, prepared, cancelled) if job.makes_tiff else None,
        on_wait=note,
        comparable=comparable,
    ) as writer:
        work = ShardWork.of(prepared)
        tracker = ProgressTracker(prepared, work, writer, progress, cancelled, tell)
        if client is None:
            run_locally(prepared, work, writer, tracker)
        else:
            from napari_mgbpv2.conversion.cluster import run_on_cluster

            run_on_cluster(prepared, work, writer, tracker, client, note)
        prepared.check_source()
        return writer.commit()
