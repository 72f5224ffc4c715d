"""Recover from running out of memory: retry the missing shards first, then restart with smaller tiles."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.addresses import Destination
from napari_mgbpv2.conversion.job import ConversionPlan
from napari_mgbpv2.conversion.plan import prepare
from napari_mgbpv2.conversion.publishing import comparable
from napari_mgbpv2.errors import DestinationError, OutOfMemory, TilingError
from napari_mgbpv2.upscaling import UpscalePlan

if TYPE_CHECKING:
    from napari_mgbpv2.io.writers.ome_zarr import PartialOutput

SMALLEST_TILE = 64
# of CUDA and Metal, of torch on the CPU, and of Python, whose threads need some
_OUT_OF_MEMORY_PHRASES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "can't start new thread",
    "could not create a primitive",  # oneDNN, if it cannot allocate its buffers
)


def run_with_retries(
    prepared: ConversionPlan, attempt: Callable[[ConversionPlan], object], log: Callable[[str], None]
) -> ConversionPlan:
    """Run a conversion and retry when memory runs out: the missing shards first, then everything with smaller tiles.

    A smaller tile changes the result, so the partial output of this run is discarded before the restart. The output of
    an earlier run and a finished image are never discarded. Device memory is released at the end.

    Parameters
    ----------
    prepared
        The conversion.
    attempt
        Function that runs a conversion.
    log
        Called with a sentence before each further attempt.

    Returns
    -------
    ConversionPlan
        The conversion that succeeded, with its final tile size.

    Raises
    ------
    OutOfMemory
        Every attempt ran out of memory.
    Exception
        Any other error that ``attempt`` raises.
    """
    from napari_mgbpv2.runtime import release_device_memory

    resume = prepared.job.resume
    resumes_earlier_run = _has_resumable_output(prepared)
    try:
        while True:
            before = _count_kept_shards(prepared)
            try:
                attempt(prepared)
                return prepared
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                has_progressed = _count_kept_shards(prepared) > before
                tile = smaller_tile(prepared.plan)
                if not has_progressed and (resumes_earlier_run or tile is None):
                    raise OutOfMemory(_out_of_memory_message(prepared)) from error
            gc.collect()  # the error and its frames form a reference cycle that keeps tiles alive
            release_device_memory()
            if has_progressed:
                prepared = replace(prepared, job=replace(prepared.job, resume=True))
                log("Not enough memory: trying again; what is done is kept.")
            elif tile is not None:
                discard_partial_output(prepared)
                prepared = with_tile(replace(prepared, job=replace(prepared.job, resume=resume)), tile)
                log(f"Not enough memory: beginning anew with tiles of {tile} px.")
    finally:
        release_device_memory()


def run_with_oom_fallback(
    prepared: ConversionPlan, attempt: Callable[[ConversionPlan], object], log: Callable[[str], None]
) -> ConversionPlan:
    """Run a conversion with retries. A resumed conversion starts with the tile size of the earlier run.

    A tile size that the job requests is tried first. Parameters, result and errors are those of `run_with_retries`.
    """
    job = prepared.job
    if (job.resume or job.overwrite) and job.options.tile is None:
        prepared = with_tile_of_existing_output(prepared)
    return run_with_retries(prepared, attempt, log)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that host or device memory is exhausted."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _OUT_OF_MEMORY_PHRASES)


def smaller_tile(plan: UpscalePlan) -> int | None:
    """Return half the side of the current tile, in target pixels, or None if that is below `SMALLEST_TILE`."""
    tile = _tile_of(plan) // 2
    return tile if tile >= SMALLEST_TILE else None


def with_tile(prepared: ConversionPlan, tile: int) -> ConversionPlan:
    """Plan the same conversion with another tile.

    Raises
    ------
    OutOfMemory
        The network needs larger tiles.
    """
    job = prepared.job
    try:
        return prepare(replace(job, options=replace(job.options, tile=tile, overlap=None)))
    except TilingError as error:
        raise OutOfMemory(_out_of_memory_message(prepared)) from error


def with_tile_of_existing_output(prepared: ConversionPlan) -> ConversionPlan:
    """Return the conversion with the tile size of the existing output, if that run had to halve its tiles."""
    wanted = (_provenance_of_existing_output(prepared) or {}).get("tile")
    halved = prepared
    while wanted and max(halved.layout.provenance["tile"]) > max(wanted):
        tile = smaller_tile(halved.plan)
        if tile is None:
            return prepared
        try:
            halved = with_tile(halved, tile)
        except OutOfMemory:
            return prepared
    return halved if halved.layout.provenance["tile"] == wanted else prepared


def find_partial_output(destination: Destination) -> PartialOutput | None:
    """Return the partial output at a destination, or None if there is none.

    Raises
    ------
    DestinationError
        The partial output cannot be read.
    """
    from napari_mgbpv2.io.writers import ome_zarr

    return ome_zarr.find_partial_output(destination)


def has_partial_output(destination: Destination) -> bool:
    """Return whether a destination has partial output, readable or not."""
    try:
        return find_partial_output(destination) is not None
    except DestinationError:
        return True


def _has_resumable_output(prepared: ConversionPlan) -> bool:
    """Return whether this run resumes the partial output of an earlier one."""
    job = prepared.job
    kept = find_partial_output(job.destination) if job.resume or job.overwrite else None
    return kept is not None and (not job.overwrite or _is_of_this_job(kept, prepared))


def discard_partial_output(prepared: ConversionPlan) -> None:
    """Remove the partial output of this job. Other partial output and finished images are not touched."""
    from napari_mgbpv2.io.writers.ome_zarr import open_transaction

    job = prepared.job
    place = open_transaction(job.destination, overwrite=job.overwrite, is_file=job.makes_tiff)
    is_ours = False
    try:
        kept = place.partial_output()
        is_ours = kept is not None and _is_of_this_job(kept, prepared)
    finally:
        if is_ours:
            place.discard()
        else:
            place.keep()


def _out_of_memory_message(prepared: ConversionPlan) -> str:
    kept = (
        "; what is done is kept, and resuming goes on with it" if has_partial_output(prepared.job.destination) else ""
    )
    return (
        f"{prepared.job.destination}: there is not enough memory on {prepared.plan.device} for tiles of "
        f"{_tile_of(prepared.plan)} px; close other programs, or choose a smaller tile or another device{kept}"
    )


def _is_of_this_job(kept: PartialOutput, prepared: ConversionPlan) -> bool:
    from napari_mgbpv2.io.writers.ome_zarr import differences

    return not differences(comparable(kept.job), comparable(prepared.layout.provenance))


def _count_kept_shards(prepared: ConversionPlan) -> int:
    """Return the number of stored shards in the partial output of this job."""
    kept = find_partial_output(prepared.job.destination)
    return kept.shards if kept and _is_of_this_job(kept, prepared) else 0


def _tile_of(plan: UpscalePlan) -> int:
    """Return the side of a square with as many pixels as a tile, which may be oblong."""
    return math.isqrt(plan.layout.grid.rows.tile * plan.layout.grid.columns.tile)


def _provenance_of_existing_output(prepared: ConversionPlan) -> Mapping[str, Any] | None:
    from napari_mgbpv2.io.writers.ome_tiff import read_provenance
    from napari_mgbpv2.io.writers.ome_zarr import provenance_of

    job = prepared.job
    if kept := find_partial_output(job.destination):
        return kept.job
    if not job.resume:  # what is finished is made anew
        return None
    return read_provenance(job.destination) if job.makes_tiff else provenance_of(job.destination)
