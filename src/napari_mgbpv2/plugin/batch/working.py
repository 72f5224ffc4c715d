"""The batch: file after file into OME-Zarr; one that fails does not stop the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from napari_mgbpv2.conversion import ConversionJob, prepare
from napari_mgbpv2.errors import Cancelled
from napari_mgbpv2.plugin.choices import Choices
from napari_mgbpv2.plugin.jobs import EXPECTED, Step, is_out_of_memory, sentence_of
from napari_mgbpv2.plugin.upscaling.saving import convert_with_retries

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".npy", ".zarr")


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
    """

    source: Path
    state: State
    text: str = ""
    step: Step | None = None


def destination_of(source: Path, folder: Path, scale: int | None) -> Path:
    """Return where the result of a file goes."""
    name = source.name
    for suffix in (".zarr", ".ome", *SUFFIXES, ".ome"):
        name = name.removesuffix(suffix)
    return folder / f"{name}_x{scale}.ome.zarr"


def images_in(folder: Path) -> list[Path]:
    """Return the images of a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def run_batch(
    sources: Sequence[Path],
    folder: Path,
    choices: Choices,
    tell: Callable[[FileState], None],
    cancelled: Callable[[], bool],
) -> int:
    """Convert files one after the other.

    Parameters
    ----------
    sources
        The files.
    folder
        Where the results go.
    choices
        How.
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
    for source in sources:
        tell(FileState(source, State.RUNNING, "starting"))
        try:
            _convert(source, folder, choices, tell, cancelled)
        except Cancelled:
            tell(FileState(source, State.CANCELLED, "cancelled"))
            raise
        except (*EXPECTED, RuntimeError) as error:
            if not isinstance(error, EXPECTED) and not is_out_of_memory(error):
                raise
            failures += 1
            tell(FileState(source, State.FAILED, sentence_of(error).removeprefix(f"{source}: ")))
    return failures


def _convert(
    source: Path,
    folder: Path,
    choices: Choices,
    tell: Callable[[FileState], None],
    cancelled: Callable[[], bool],
) -> None:
    job = ConversionJob(
        source, destination_of(source, folder, choices.scale), choices.scale, choices.model, choices.options()
    )
    prepared = convert_with_retries(prepare(job), partial(_tell_of, source, tell), cancelled)
    tell(FileState(source, State.DONE, prepared.job.destination.name))


def _tell_of(source: Path, tell: Callable[[FileState], None], what: Step | str) -> None:
    step = what if isinstance(what, Step) else None
    tell(FileState(source, State.RUNNING, str(what), step))
