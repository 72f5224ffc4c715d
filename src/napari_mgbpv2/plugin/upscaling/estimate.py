"""What upscaling will take, said before it begins: size, disk, memory, and time from a short measured probe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mgbpv2.conversion import ConversionJob, Prepared, prepare
from napari_mgbpv2.plugin.choices import Choices
from napari_mgbpv2.plugin.jobs import readable_bytes, readable_seconds
from napari_mgbpv2.plugin.layer_image import LayerImage
from napari_mgbpv2.sources import ImageSource
from napari_mgbpv2.upscaling import UpscalePlan, plan_upscale

PROBE_SIDE = 320  # target pixels along each side of the probe
PROBE_RUNS, PROBE_SECONDS = 3, 0.5  # it is run that often, or for that long: the fastest counts

_speeds: dict[tuple[Any, ...], float] = {}


@dataclass(frozen=True)
class Estimate:
    """What the whole image will take.

    Attributes
    ----------
    shape
        Of the result, without colour samples.
    device
        Where the network runs.
    tiles
        How often it runs.
    disk_bytes, free_bytes
        Disk for the result, before compression, and what is free.
    memory_bytes, available_bytes
        Memory at the peak, and what is available.
    seconds
        Time for all of it.
    """

    shape: tuple[int, ...]
    device: str
    tiles: int
    disk_bytes: int
    free_bytes: int
    memory_bytes: int
    available_bytes: int
    seconds: float

    def __str__(self) -> str:
        """Say it in a few words."""
        return (
            f"{' x '.join(f'{size:,}' for size in self.shape)} px, {self.tiles:,} tile{'s' * (self.tiles != 1)}\n"
            f"all of it: about {readable_seconds(self.seconds)} on {self.device}, "
            f"{readable_bytes(self.memory_bytes)} of memory, up to {readable_bytes(self.disk_bytes)} on disk"
        )

    @property
    def warning(self) -> str:
        """What will not fit; empty if all does."""
        lacking = []
        if self.disk_bytes > self.free_bytes:
            lacking.append(f"only {readable_bytes(self.free_bytes)} of disk are free")
        if self.memory_bytes > self.available_bytes:
            lacking.append(f"only {readable_bytes(self.available_bytes)} of memory are available: use a smaller tile")
        return "; ".join(lacking)


def prepare_layer(image: LayerImage, place: dict[str, Any], choices: Choices, destination: Path) -> Prepared:
    """Prepare the conversion of a layer; reads no pixel, writes nothing.

    Parameters
    ----------
    image
        The layer's image.
    place
        ``scale``, ``translate`` and ``units`` of the layer, one entry an axis.
    choices
        How.
    destination
        The OME-Zarr to write.

    Raises
    ------
    MGBPv2Error
        It cannot be done so; the message says why.
    """
    options = choices.options(image.axes, image.value_range)
    source = _source_of(image, place, str(options["axes"]))
    job = ConversionJob(source, destination, choices.scale, choices.model, options)
    return prepare(job)


def estimate(prepared: Prepared, destination_folder: Path) -> Estimate:
    """Estimate what a conversion takes; runs the network once or twice on a small image of noise."""
    import psutil

    from napari_mgbpv2.engine import choose_device
    from napari_mgbpv2.ome_zarr import free_space

    plan = prepared.plan
    layout = plan.layout
    pixels = layout.tiles * layout.grid.rows.tile * layout.grid.columns.tile
    return Estimate(
        shape=tuple(size for axis, size in enumerate(layout.shape) if axis != layout.samples),
        device=choose_device(plan.compute_tile.device),
        tiles=layout.tiles,
        disk_bytes=prepared.disk_bytes,
        free_bytes=free_space(destination_folder),
        memory_bytes=prepared.memory_bytes,
        available_bytes=psutil.virtual_memory().available,
        seconds=pixels / measured_speed(plan),
    )


def measured_speed(plan: UpscalePlan) -> float:
    """Measure target pixels a second that go through a plan's network; once for each kind."""
    compute, samples = plan.compute_tile, plan.layout.groups[0].size
    key = (plan.model_hash or id(compute.model), compute.device, compute.precision, samples)
    if key not in _speeds:
        from napari_mgbpv2.engine import ModelFile

        side = PROBE_SIDE // compute.scale
        pixels = np.random.default_rng(0).random((side, side, samples), np.float32)
        probe = plan_upscale(
            pixels if samples > 1 else pixels[:, :, 0],
            compute.scale,
            axes="yxs"[: 2 + (samples > 1)],
            model=compute.model.path if isinstance(compute.model, ModelFile) else compute.model,
            device=compute.device,
            precision=compute.precision,
            tile=10**6,
        )
        probe.compute_tile((), 0, 0, 0)  # loads the network and wakes the device
        times: list[float] = []
        while not times or (len(times) < PROBE_RUNS and sum(times) < PROBE_SECONDS):
            began = time.perf_counter()
            probe.compute_tile((), 0, 0, 0)
            times.append(time.perf_counter() - began)
        _speeds[key] = probe.layout.grid.rows.tile * probe.layout.grid.columns.tile / min(times)
    return _speeds[key]


def _source_of(image: LayerImage, place: dict[str, Any], axes: str) -> ImageSource:
    from napari_mgbpv2.sources.image import long_unit

    spatial = axes.replace("s", "")
    placed = [axis for axis in spatial if axis != "c"]
    numbers = {axis: spatial.index(axis) for axis in placed}
    return ImageSource(
        data=image.data,
        axes=axes,
        pixel_size={axis: float(abs(place["scale"][number])) for axis, number in numbers.items()},
        units={axis: long_unit(str(place["units"][number])) for axis, number in numbers.items()},
        translation={axis: float(place["translate"][number]) for axis, number in numbers.items()},
        channel_names=None,
        channel_colors=None,
        path=image.name,
        kind="napari layer",
    )
