"""Saving: the conversion, gone on with where it was stopped, and with smaller tiles where the memory is not enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from napari_mgbpv2.conversion import ConversionPlan, run
from napari_mgbpv2.conversion.oom import discard_partial_output, run_with_retries, with_tile_of_existing_output
from napari_mgbpv2.plugin.jobs import Clock, Step
from napari_mgbpv2.plugin.upscaling.begun import Begun, begun_at

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

    prepared: ConversionPlan
    was_complete: bool


def save(prepared: ConversionPlan, how: How, tell: Tell, cancelled: Asked) -> Saved | Begun:
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
        prepared = _with(prepared, overwrite=True, resume=False)
        discard_partial_output(prepared)
        return _converted(prepared, tell, cancelled)
    prepared = with_tile_of_existing_output(_with(prepared, resume=True))
    begun = begun_at(prepared) if how is How.ASK else None
    return begun or _converted(prepared, tell, cancelled)


def _converted(prepared: ConversionPlan, tell: Tell, cancelled: Asked) -> Saved:
    """Convert; parameters and errors as `save` has them."""
    clock = Clock(tell)

    def attempt(prepared: ConversionPlan) -> None:
        nonlocal clock
        clock = Clock(tell)
        run(prepared, cancelled=cancelled, tell=clock, note=tell)

    done = run_with_retries(prepared, attempt, tell)
    return Saved(done, was_complete=clock.last is None)


def _with(prepared: ConversionPlan, *, resume: bool, overwrite: bool | None = None) -> ConversionPlan:
    job = prepared.job
    overwrite = job.overwrite if overwrite is None else overwrite
    return replace(prepared, job=replace(job, resume=resume, overwrite=overwrite))
