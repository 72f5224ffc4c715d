"""Small networks and images that the tests share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import MGBPv2
from napari_mgbpv2.upscaling import UpscalePlan, plan_upscale
from napari_mgbpv2.upscaling.lazy import TiledImage
from napari_mgbpv2.upscaling.options import UpscaleOptions

Array = npt.NDArray[Any]

TINY = ModelConfig(features=(6, 5, 4), steps=2, kernel=3)


def a_network(config: ModelConfig = TINY, *, scale: int | None = 4, guard: int | None = None, seed: int = 0) -> MGBPv2:
    """A network of random weights, its outputs of the size of its inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MGBPv2(config)
    network.scale, network.guard = scale, guard
    return network.eval().requires_grad_(False)


def an_image(*shape: int, dtype: npt.DTypeLike = "u1", seed: int = 0) -> Array:
    """Random values over the whole range of an integer type, or in [0, 1)."""
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


class CountingSource:
    """An array that remembers which windows were read."""

    def __init__(self, array: Array) -> None:
        self.array, self.windows = array, []
        self.shape, self.dtype = array.shape, array.dtype
        self._lock = threading.Lock()

    def __getitem__(self, window: tuple[slice, ...]) -> Array:
        with self._lock:
            self.windows.append(window)
        return self.array[window]

    @property
    def pixels_read(self) -> int:
        return sum(int(np.prod([part.stop - part.start for part in window])) for window in self.windows)


class CountedTiles:
    """Wraps the function that computes a tile and counts its calls by tile."""

    def __init__(self) -> None:
        self.runs: dict[tuple[Any, ...], int] = {}
        self._lock = threading.Lock()

    def __call__(self, compute: Callable[..., Array]) -> Callable[..., Array]:
        def counted(*tile: Any) -> Array:
            with self._lock:
                self.runs[tile] = self.runs.get(tile, 0) + 1
            return compute(*tile)

        return counted


def counted_image(plan: UpscalePlan, **options: Any) -> tuple[TiledImage, CountedTiles]:
    """A plan's lazy image, and what counts its tiles."""
    counter = CountedTiles()
    return plan.tiled_image(wrap_compute=counter, **options), counter


def untiled(image: Any, **options: Any) -> Array:
    """What the network gives for the whole image at once."""
    return np.asarray(plan_upscale(image, UpscaleOptions(tile=10**6, **options)).tiled_image())
