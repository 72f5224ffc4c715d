"""Saving: the conversion, gone on with where it was stopped, and with smaller tiles where the memory is not enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from napari_mgbpv2.conversion import Prepared, run
from napari_mgbpv2.plugin.jobs import Clock, Step, is_out_of_memory
from napari_mgbpv2.plugin.upscaling.begun import (
    Begun,
    begun_at,
    drop,
    kept_at,
    smaller_tile,
    with_tile,
    with_tile_of_what_is_there,
)

Tell = Callable[[Step | str], None]
Asked = Callable[[], bool]


class How(Enum):
    """What to do about what an earlier run has left at the destination."""

    ASK = "ask before going on with it"
    RESUME = "go on with it"
    ANEW = "drop it, and replace what is finished"


@dataclass(frozen=True)
class Saved:
    """What has been done.

    Attributes
    ----------
    prepared
        The conversion, with the tile that it has come to.
    was_complete
        Whether there was nothing to do.
    """

    prepared: Prepared
    was_complete: bool


def save(prepared: Prepared, how: How, tell: Tell, cancelled: Asked) -> Saved | Begun:
    """Convert, or say that somebody has begun to and has to be asked.

    Parameters
    ----------
    prepared
        The conversion.
    how
        What to do about what is there already.
    tell
        Called with a `Step`, or with a sentence.
    cancelled
        Asked before each tile.

    Raises
    ------
    DestinationError
        What is there has been made with other settings, or is not to be replaced.
    MGBPv2Error, MemoryError, OSError
        As `run` has them.
    """
    if how is How.ANEW:
        return convert_with_retries(_with(prepared, overwrite=True, resume=False), tell, cancelled)
    prepared = with_tile_of_what_is_there(_with(prepared, resume=True))
    begun = begun_at(prepared) if how is How.ASK else None
    return begun or convert_with_retries(prepared, tell, cancelled)


def convert_with_retries(prepared: Prepared, tell: Tell, cancelled: Asked) -> Saved:
    """Convert, and try again when memory runs out: first for what is missing, then anew with smaller tiles.

    A smaller tile makes another job, so what this run has stored is dropped for it; never what an earlier run has, or a
    finished image. Memory of a device is given back at the end. Parameters and errors as `save` has them.
    """
    from napari_mgbpv2.engine import release_device_memory

    job = prepared.job
    is_of_an_earlier_run = job.resume and kept_at(job.destination) is not None
    try:
        while True:
            clock = Clock(tell)
            try:
                run(prepared, cancelled=cancelled, tell=clock)
                return Saved(prepared, was_complete=clock.last is None)
            except (MemoryError, RuntimeError) as error:
                # an old image at the destination is in the way of resuming; what is begun anew replaces it in the end
                goes_on = clock.last is not None and clock.last.bytes_written > 0 and not job.overwrite
                tile = smaller_tile(prepared.plan)
                if not is_out_of_memory(error) or (not goes_on and (is_of_an_earlier_run or tile is None)):
                    raise
            release_device_memory()
            if goes_on:
                prepared = _with(prepared, resume=True)
                tell("Not enough memory: trying again; what is done is kept.")
            elif tile is not None:
                drop(prepared)
                prepared = with_tile(_with(prepared, resume=job.resume), tile)
                tell(f"Not enough memory: beginning anew with tiles of {tile} px.")
    finally:
        release_device_memory()


def _with(prepared: Prepared, *, resume: bool, overwrite: bool | None = None) -> Prepared:
    job = prepared.job
    overwrite = job.overwrite if overwrite is None else overwrite
    return replace(prepared, job=replace(job, resume=resume, overwrite=overwrite))
