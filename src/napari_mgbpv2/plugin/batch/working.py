"""The batch: file after file into OME-Zarr; one that fails does not stop the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from napari_mgbpv2.conversion import ConversionJob, prepare
from napari_mgbpv2.conversion.oom import has_partial_output, is_out_of_memory
from napari_mgbpv2.errors import Cancelled
from napari_mgbpv2.plugin.jobs import EXPECTED, Step, sentence_of
from napari_mgbpv2.plugin.upscaling.saving import How, Saved, save
from napari_mgbpv2.upscaling import UpscaleOptions


class State(Enum):
    """How far a file has come."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class FileState:
    """News of one file.

    Attributes
    ----------
    source
        The file.
    state
        How far it has come.
    text
        What to show beside it.
    step
        Where its conversion stands.
    device
        Where the network runs, as soon as it is known.
    """

    source: Path
    state: State
    text: str = ""
    step: Step | None = None
    device: str = ""


Tell = Callable[[FileState], None]


def run_batch(
    destinations: Mapping[Path, Path], choices: UpscaleOptions, how: How, tell: Tell, cancelled: Callable[[], bool]
) -> int:
    """Convert files one after the other.

    Parameters
    ----------
    destinations
        By file, where its result goes.
    choices
        How to upscale.
    how
        What to do about results that are there already, complete or not.
    tell
        Called with news of a file.
    cancelled
        Asked before each tile.

    Returns
    -------
    int
        How many files have failed.

    Raises
    ------
    Cancelled
        ``cancelled`` said so.
    """
    failures = 0
    for source, destination in destinations.items():
        tell(FileState(source, State.RUNNING, "starting"))
        try:
            tell(FileState(source, State.DONE, _convert(source, destination, choices, how, tell, cancelled)))
        except Cancelled:
            kept = "; what is done is kept" if has_partial_output(destination) else ""
            tell(FileState(source, State.CANCELLED, f"cancelled{kept}"))
            raise
        except (*EXPECTED, RuntimeError) as error:
            if not isinstance(error, EXPECTED) and not is_out_of_memory(error):
                raise
            failures += 1
            sentence = sentence_of(error).removeprefix(f"{source}: ").removeprefix(f"{destination}: ")
            tell(FileState(source, State.FAILED, f"failed: {sentence}"))
    return failures


def _convert(
    source: Path, destination: Path, choices: UpscaleOptions, how: How, tell: Tell, cancelled: Callable[[], bool]
) -> str:
    """Convert a file, and say what has come of it."""
    job = ConversionJob(source, destination, choices)
    prepared = prepare(job)

    def tell_of(what: Step | str) -> None:
        step = what if isinstance(what, Step) else None
        tell(FileState(source, State.RUNNING, str(what), step, prepared.plan.device))

    saved = save(prepared, how, tell_of, cancelled)
    was_complete = isinstance(saved, Saved) and saved.was_complete
    return f"{'complete already: ' if was_complete else ''}{destination.name}"
