"""The run behind the widget "Fine-tune": the trainer, fed with layers or files, its best kept when it is stopped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mgbpv2.errors import Cancelled, ImageError, TrainingError
from napari_mgbpv2.plugin.layer_image import LayerImage

LARGEST_LAYER = 4 * 2**30  # bytes of a layer that are copied into a file for the trainer
REPORT_EVERY = 5  # steps


@dataclass(frozen=True)
class Request:
    """What to train on, and for how long.

    Attributes
    ----------
    layers
        Images of layers.
    paths
        Files and folders.
    base
        Model to start from.
    output
        The model to write.
    minutes
        How long.
    device
        As `upscale` has it.
    value_range
        Values of black and white; None for what the trainer finds.
    """

    layers: tuple[LayerImage, ...]
    paths: tuple[Path, ...]
    base: Path
    output: Path
    minutes: float
    device: str | None = None
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class TrainingUpdate:
    """Where the run stands.

    Attributes
    ----------
    step, share, seconds_left
        Steps done, share of the run, and the time that is left.
    loss
        Mean since the last news.
    gain
        Decibels over bicubic upscaling on images that are only scored; None but after a validation.
    sheet
        Newest contact sheet, where there is one.
    device
        Where the network is trained.
    """

    step: int
    share: float
    seconds_left: float
    loss: float
    gain: float | None
    sheet: Path | None
    device: str


@dataclass(frozen=True)
class Trained:
    """What has come of it.

    Attributes
    ----------
    path
        The model.
    was_stopped
        Whether it is the best until somebody stopped the run.
    """

    path: Path
    was_stopped: bool


def finetune(request: Request, tell: Callable[[TrainingUpdate], None], cancelled: Callable[[], bool]) -> Trained:
    """Train, and keep the best model when told to stop.

    Parameters
    ----------
    request
        What to do.
    tell
        Called with news.
    cancelled
        Asked before each step.

    Raises
    ------
    TrainingError, SourceError, ImageError, DeviceError
        It cannot be trained on that.
    Cancelled
        It was stopped before there was anything to keep.
    """
    from napari_mgbpv2.runtime import choose_device, release_device_memory
    from napari_mgbpv2.training.options import TrainingOptions
    from napari_mgbpv2.training.state import write_file
    from napari_mgbpv2.training.trainer import BEST_FILE, TrainingReport, train

    with tempfile.TemporaryDirectory(prefix="mgbpv2-") as scratch:
        copies = [_write_layer(image, Path(scratch), number) for number, image in enumerate(request.layers)]
        if not (copies or request.paths):
            raise TrainingError("there are no images to train on: choose layers, files or a folder.")
        device = choose_device(request.device)
        request.output.parent.mkdir(parents=True, exist_ok=True)
        options = TrainingOptions(
            images=tuple(map(str, (*copies, *request.paths))),
            output=request.output,
            init=str(request.base),
            minutes=request.minutes,
            device=device,
            value_range=request.value_range or _common_range(request.layers),
            workers=0,  # this is a thread of a program with windows, which must not be forked
        )

        def on_report(report: TrainingReport) -> None:
            gain = None if report.validation is None else report.validation.get("gain")
            sheets = sorted(options.folder.glob("sheet_*.png"))
            tell(
                TrainingUpdate(
                    report.step,
                    report.share,
                    report.seconds_left,
                    report.loss,
                    gain,
                    sheets[-1] if sheets else None,
                    device,
                )
            )

        best = options.folder / BEST_FILE
        try:
            return Trained(train(options, on_report=on_report, report_every=REPORT_EVERY, cancelled=cancelled), False)
        except Cancelled:
            if not best.is_file():
                raise
            write_file(request.output, best.read_bytes())
            return Trained(request.output, True)
        finally:
            release_device_memory()


def free_name(folder: Path, stem: str) -> Path:
    """Return the path of a model that is not there yet: ``stem``, else with a number."""
    names = (stem, *(f"{stem}-{number}" for number in range(2, 10_000)))
    taken = (".safetensors", ".training")
    return next(
        folder / f"{name}.safetensors"
        for name in names
        if not any((folder / f"{name}{suffix}").exists() for suffix in taken)
    )


def _write_layer(image: LayerImage, folder: Path, number: int) -> Path:
    """Copy a layer's pixels into a file that the trainer reads, with axes that it guesses right."""
    shape = tuple(int(size) for size in image.data.shape)
    dtype = np.dtype(image.data.dtype)
    if int(np.prod(shape, dtype=np.int64)) * dtype.itemsize > LARGEST_LAYER:
        raise ImageError(f"the layer {image.name!r} is too large to be copied: name its file instead.")
    # the name of the file is what the new model's card will say that it was trained on
    name = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in image.name)[:100]
    (folder / str(number)).mkdir()
    path = folder / str(number) / f"{name or 'layer'}.npy"
    copy: Any = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if len(shape) > 2 and "s" not in image.axes:
        for index in range(shape[0]):
            copy[index] = np.asarray(image.data[index])
    else:
        copy[:] = np.asarray(image.data)
    copy.flush()
    return path


def _common_range(images: Sequence[LayerImage]) -> tuple[float, float] | None:
    """Return the range that holds those of all layers; None where one of them has its type's."""
    ranges = [image.value_range for image in images]
    if not ranges or None in ranges:
        return None
    lows, highs = zip(*(each for each in ranges if each is not None), strict=True)
    return min(lows), max(highs)
