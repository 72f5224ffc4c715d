"""What to do when memory runs out: try again for what is missing, then begin anew with smaller tiles."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.addresses import Destination
from napari_mgbpv2.conversion.job import Prepared
from napari_mgbpv2.conversion.plan import prepare
from napari_mgbpv2.conversion.publishing import comparable
from napari_mgbpv2.errors import DestinationError, OutOfMemory, TilingError
from napari_mgbpv2.upscaling import UpscalePlan

if TYPE_CHECKING:
    from napari_mgbpv2.io.writers.ome_zarr import Kept

SMALLEST_TILE = 64
# of CUDA and Metal, of torch on the CPU, and of Python, whose threads need some
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "can't start new thread")


def run_with_retries(prepared: Prepared, attempt: Callable[[Prepared], object], say: Callable[[str], None]) -> Prepared:
    """Convert, and try again when memory runs out: first for what is missing, then anew with smaller tiles.

    A smaller tile makes another job, so what this run has stored is dropped for it; never what an earlier run has, or a
    finished image. Memory of a device is given back at the end.

    Parameters
    ----------
    prepared
        The conversion.
    attempt
        Runs a conversion.
    say
        Called with a sentence before each further attempt.

    Returns
    -------
    Prepared
        The conversion that has succeeded, with the tile that it has come to.

    Raises
    ------
    OutOfMemory
        No attempt has had enough memory.
    Exception
        What ``attempt`` raises beside that.
    """
    from napari_mgbpv2.runtime import release_device_memory

    resume = prepared.job.resume
    is_of_an_earlier_run = _kept_of_this_job(prepared)
    try:
        while True:
            before = _shards_kept(prepared)
            try:
                attempt(prepared)
                return prepared
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                goes_on = _shards_kept(prepared) > before
                tile = smaller_tile(prepared.plan)
                if not goes_on and (is_of_an_earlier_run or tile is None):
                    raise OutOfMemory(_sentence(prepared)) from error
            gc.collect()  # the error and what it has kept alive refer to each other
            release_device_memory()
            if goes_on:
                prepared = replace(prepared, job=replace(prepared.job, resume=True))
                say("Not enough memory: trying again; what is done is kept.")
            elif tile is not None:
                drop(prepared)
                prepared = with_tile(replace(prepared, job=replace(prepared.job, resume=resume)), tile)
                say(f"Not enough memory: beginning anew with tiles of {tile} px.")
    finally:
        release_device_memory()


def run_in_memory(prepared: Prepared, attempt: Callable[[Prepared], object], say: Callable[[str], None]) -> Prepared:
    """Convert, with the tile that an earlier run has come to where that is resumed, and with retries.

    A tile that the job asks for is kept to at first. Parameters, result and errors as `run_with_retries` has them.
    """
    job = prepared.job
    if (job.resume or job.overwrite) and job.options.tile is None:
        prepared = with_tile_of_what_is_there(prepared)
    return run_with_retries(prepared, attempt, say)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of its accelerator is used up."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _WORDS)


def smaller_tile(plan: UpscalePlan) -> int | None:
    """Return the side of a tile of a quarter of the pixels; None where that would be too small."""
    tile = _tile_of(plan) // 2
    return tile if tile >= SMALLEST_TILE else None


def with_tile(prepared: Prepared, tile: int) -> Prepared:
    """Plan the same conversion with another tile.

    Raises
    ------
    OutOfMemory
        The network needs larger ones.
    """
    job = prepared.job
    try:
        return prepare(replace(job, options=replace(job.options, tile=tile, overlap=None)))
    except TilingError as error:
        raise OutOfMemory(_sentence(prepared)) from error


def with_tile_of_what_is_there(prepared: Prepared) -> Prepared:
    """Take over the tile of an earlier run, finished or not, where that had to halve its own: to get the same one."""
    wanted = (_job_of_what_is_there(prepared) or {}).get("tile")
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


def kept_at(destination: Destination) -> Kept | None:
    """Tell what work is kept that has not been completed; None where there is none.

    Raises
    ------
    DestinationError
        There may be some, and it cannot be read.
    """
    from napari_mgbpv2.io.writers import ome_zarr

    return ome_zarr.kept_at(destination)


def is_kept(destination: Destination) -> bool:
    """Whether work is kept that has not been completed, readable or not."""
    try:
        return kept_at(destination) is not None
    except DestinationError:
        return True


def _kept_of_this_job(prepared: Prepared) -> bool:
    """Whether an earlier run has left work that this one goes on with."""
    job = prepared.job
    kept = kept_at(job.destination) if job.resume or job.overwrite else None
    return kept is not None and (not job.overwrite or _is_of_this_job(kept, prepared))


def drop(prepared: Prepared) -> None:
    """Remove the unfinished work of this very job; nothing else, least of all a finished image."""
    from napari_mgbpv2.io.writers.ome_zarr import place_at

    job = prepared.job
    place = place_at(job.destination, overwrite=job.overwrite, is_file=job.makes_tiff)
    is_ours = False
    try:
        kept = place.kept()
        is_ours = kept is not None and _is_of_this_job(kept, prepared)
    finally:
        if is_ours:
            place.give_up()
        else:
            place.keep()


def _sentence(prepared: Prepared) -> str:
    kept = "; what is done is kept, and resuming goes on with it" if is_kept(prepared.job.destination) else ""
    return (
        f"{prepared.job.destination}: there is not enough memory on {prepared.plan.device} for tiles of "
        f"{_tile_of(prepared.plan)} px; close other programs, or choose a smaller tile or another device{kept}"
    )


def _is_of_this_job(kept: Kept, prepared: Prepared) -> bool:
    from napari_mgbpv2.io.writers.ome_zarr import differences

    return not differences(comparable(kept.job), comparable(prepared.layout.provenance))


def _shards_kept(prepared: Prepared) -> int:
    """Count the shards that are kept of this very job."""
    kept = kept_at(prepared.job.destination)
    return kept.shards if kept and _is_of_this_job(kept, prepared) else 0


def _tile_of(plan: UpscalePlan) -> int:
    """Side of a square of as many pixels as a tile has, which may be wide."""
    return math.isqrt(plan.layout.grid.rows.tile * plan.layout.grid.columns.tile)


def _job_of_what_is_there(prepared: Prepared) -> Mapping[str, Any] | None:
    from napari_mgbpv2.io.writers.ome_tiff import read_provenance
    from napari_mgbpv2.io.writers.ome_zarr import provenance_of

    job = prepared.job
    if kept := kept_at(job.destination):
        return kept.job
    if not job.resume:  # what is finished is made anew
        return None
    return read_provenance(job.destination) if job.makes_tiff else provenance_of(job.destination)
