"""What a conversion will take, said before it begins: size, disk, memory, and time from a short measured probe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_mgbpv2.conversion.job import ConversionPlan
from napari_mgbpv2.formatting import format_bytes, format_duration
from napari_mgbpv2.memory import available_memory
from napari_mgbpv2.upscaling import UpscalePlan, plan_upscale
from napari_mgbpv2.upscaling.options import UpscaleOptions

PROBE_SIDE = 320  # target pixels along each side of the probe
PROBE_RUNS, PROBE_SECONDS = 3, 0.5  # it is run that often, or for that long: the fastest counts


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
    free_bytes: int | None
    memory_bytes: int
    available_bytes: int
    seconds: float

    def __str__(self) -> str:
        """Say it in a few words."""
        return (
            f"{' x '.join(f'{size:,}' for size in self.shape)} px, {self.tiles:,} tile{'s' * (self.tiles != 1)}\n"
            f"all of it: about {format_duration(self.seconds)} on {self.device}, "
            f"{format_bytes(self.memory_bytes)} of memory, up to {format_bytes(self.disk_bytes)} on disk"
        )

    @property
    def warning(self) -> str:
        """What will not fit; empty if all does."""
        lacking = []
        if self.free_bytes is not None and self.disk_bytes > self.free_bytes:
            lacking.append(f"only {format_bytes(self.free_bytes)} of disk are free")
        if self.memory_bytes > self.available_bytes:
            lacking.append(f"only {format_bytes(self.available_bytes)} of memory are available: use a smaller tile")
        return "; ".join(lacking)


def estimate(prepared: ConversionPlan, folder: Path | None = None) -> Estimate:
    """Estimate what a conversion takes; runs the network once or twice on a small image of noise.

    Parameters
    ----------
    prepared
        The conversion.
    folder
        Where the result is to be, if not at the job's destination.
    """
    from napari_mgbpv2.io.writers.ome_zarr import free_space

    plan = prepared.plan
    layout = plan.layout
    pixels = (1 + prepared.shard_order.extra_share) * layout.planes * len(layout.groups) * layout.grid.computed_pixels
    return Estimate(
        shape=tuple(size for axis, size in enumerate(layout.shape) if axis != layout.samples),
        device=plan.device,
        tiles=layout.tiles,
        disk_bytes=prepared.disk_bytes,
        free_bytes=free_space(folder or prepared.job.destination),
        memory_bytes=prepared.memory_bytes,
        available_bytes=available_memory(),
        seconds=pixels / measured_speed(plan),
    )


def measured_speed(plan: UpscalePlan) -> float:
    """Measure target pixels a second that go through a plan's network; once for each kind."""
    compute, samples = plan.compute_tile, plan.layout.groups[0].size
    from napari_mgbpv2.runtime import ModelFile, choose_device, get_device

    speeds = get_device(choose_device(compute.device)).measured_speeds
    key = (plan.model_hash, compute.precision, samples)
    if key not in speeds:
        side = PROBE_SIDE // compute.scale
        pixels = np.random.default_rng(0).random((side, side, samples), np.float32)
        probe = plan_upscale(
            pixels if samples > 1 else pixels[:, :, 0],
            UpscaleOptions(
                scale=compute.scale,
                axes="yxs"[: 2 + (samples > 1)],
                model=compute.model.path if isinstance(compute.model, ModelFile) else compute.model,
                device=compute.device,
                precision=compute.precision,
                tile=10**6,
            ),
        )
        probe.compute_tile((), 0, 0, 0)  # loads the network and wakes the device
        times: list[float] = []
        while not times or (len(times) < PROBE_RUNS and sum(times) < PROBE_SECONDS):
            began = time.perf_counter()
            probe.compute_tile((), 0, 0, 0)
            times.append(time.perf_counter() - began)
        speeds[key] = probe.layout.grid.computed_pixels / min(times)
    return speeds[key]
