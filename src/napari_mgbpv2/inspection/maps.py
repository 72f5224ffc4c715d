"""Make lazy maps of a whole image: details hallucinated from noise, and deviations of the result from the data.

Each map is a tiled image like the upscaled one: reading a region computes its tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.resampling import shrink
from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.inspection.networks import require_noise
from napari_mgbpv2.runtime import run_on_engine_thread
from napari_mgbpv2.tiling.grid import Span, TileAxis, TileGrid
from napari_mgbpv2.upscaling import TileUpscaler, UpscalePlan, plan_upscale
from napari_mgbpv2.upscaling.options import UpscaleOptions

if TYPE_CHECKING:
    import dask.array as da

    from napari_mgbpv2.upscaling.lazy import TiledImage, TiledLayout
    from napari_mgbpv2.upscaling.options import Model

Pixels = npt.NDArray[np.float32]

BLOCK = 512  # side of a block of the consistency map in target pixels
SHRINK_HALO = 2  # source pixels to each side that the kernel of S_f spans


@dataclass(frozen=True, eq=False)
class HallucinationMap:
    """Effect of noise on an upscaled image: lazy, float32, in the image's values, of the result's shape.

    Attributes
    ----------
    spread
        Standard deviation over draws of the noise: where it is large, the details are artificial.
    difference
        The first draw minus the result without noise.
    """

    spread: da.Array
    difference: da.Array


def hallucination_map(
    model: Model | None, image: Any, amplitude: float = 1.0, samples: int = 8, *, seed: int = 0, **options: Any
) -> HallucinationMap:
    """Show where the details of an upscaled image are artificial, lazily.

    Parameters
    ----------
    model
        Packaged name, file or network with a noise input; None for the default model of the scale.
    image
        Image to upscale, any array that `upscale` takes.
    amplitude
        W, the amplitude of the noise.
    samples
        Draws of the noise, at least 2. Computing ``spread`` runs the network that many times.
    seed
        Seed of the first draw, which ``upscale(..., noise=amplitude, seed=seed)`` shows; the other draws use the next
        seeds.
    **options
        Any other option of `upscale`: scale, axes, tile, value_range, device, ...

    Raises
    ------
    ModelError
        The model has no noise input or cannot be used.
    ImageError
        ``samples`` is below 2, the amplitude is 0, or the image cannot be upscaled.
    """
    from napari_mgbpv2.upscaling.lazy import as_dask

    plan = plan_upscale(image, UpscaleOptions(model=model, seed=seed, **options))
    maps = hallucination_images(plan, amplitude, samples)
    return HallucinationMap(*map(as_dask, maps))


def hallucination_images(plan: UpscalePlan, amplitude: float = 1.0, samples: int = 8) -> tuple[TiledImage, TiledImage]:
    """Make the images behind `hallucination_map` for a plan, spread and difference; see there for the parameters."""
    from napari_mgbpv2.upscaling.lazy import TiledImage

    require_noise(plan)
    if samples < 2:
        raise ImageError(f"samples is {samples}; a spread needs at least 2 draws of the noise.")
    if not amplitude:
        raise ImageError("amplitude is 0, which changes nothing; give the amplitude of the noise, such as 1.")
    silent, seed = plan.compute_tile, plan.compute_tile.seed
    draws = tuple(replace(silent, noise=float(amplitude), seed=seed + draw) for draw in range(samples))
    layout = replace(plan.layout, dtype=np.dtype(np.float32))
    finish = partial(_scale_to_image_values, plan.values)
    return (
        TiledImage(layout, SpreadTile(draws), finish),
        TiledImage(layout, DifferenceTile(draws[0], replace(silent, noise=0.0)), finish),
    )


def consistency_map(model: Model | None, image: Any, **options: Any) -> da.Array:
    """Show where an upscaled image deviates from the data, lazily: the absolute value of S_f(result) - image.

    S_f shrinks bicubically by the upscaling factor f. A consistent result gives the image again.

    Parameters
    ----------
    model
        Packaged name, file or network; None for the default model of the scale.
    image
        Image to upscale, any array that `upscale` takes.
    **options
        Any other option of `upscale`.

    Returns
    -------
    dask.array.Array
        The image's shape, float32, in the image's values. NaN where the kernel includes a non-finite pixel.
    """
    from napari_mgbpv2.upscaling.lazy import CHUNK, as_dask

    plan = plan_upscale(image, UpscaleOptions(model=model, **options))
    return as_dask(consistency_image(plan), max(1, CHUNK // plan.scale))


def consistency_image(plan: UpscalePlan) -> TiledImage:
    """Make the image behind `consistency_map` for a plan."""
    from napari_mgbpv2.upscaling.lazy import TiledImage

    layout, side = plan.layout, max(1, BLOCK // plan.scale)
    shape = tuple(
        size // plan.scale if axis in (layout.y, layout.x) else size for axis, size in enumerate(layout.shape)
    )
    rows, columns = (
        TileAxis(shape[axis], side, tuple(range(0, shape[axis], side)), guard=0, window="flat", end=shape[axis])
        for axis in (layout.y, layout.x)
    )
    layout = replace(layout, shape=shape, dtype=np.dtype(np.float32), grid=TileGrid(rows, columns))
    return TiledImage(layout, ConsistencyTile(plan.tiled_image(), plan.compute_tile, layout), _identity)


@dataclass(frozen=True)
class SpreadTile:
    """Running standard deviation of a tile over draws of the noise (B. P. Welford, 1962)."""

    draws: tuple[TileUpscaler, ...]

    def __call__(self, plane: tuple[int, ...], group: int, row: int, column: int) -> Pixels:
        """Compute the core of a tile, (samples, height, width)."""
        mean = self.draws[0](plane, group, row, column).astype(np.float64)
        squares = np.zeros_like(mean)
        for number, draw in enumerate(self.draws[1:], start=2):
            tile = draw(plane, group, row, column)
            away = tile - mean
            mean += away / number
            squares += away * (tile - mean)
        spread: Pixels = np.sqrt(squares / (len(self.draws) - 1)).astype(np.float32)
        return spread


@dataclass(frozen=True)
class DifferenceTile:
    """Difference of a tile with noise and without."""

    noisy: TileUpscaler
    silent: TileUpscaler

    def __call__(self, plane: tuple[int, ...], group: int, row: int, column: int) -> Pixels:
        """Compute the core of a tile, (samples, height, width)."""
        difference: Pixels = self.noisy(plane, group, row, column) - self.silent(plane, group, row, column)
        return difference


@dataclass(frozen=True)
class ConsistencyTile:
    """Absolute difference of the shrunk result and the source in a block of source pixels.

    Attributes
    ----------
    result
        The upscaled image, whose tiles neighbouring blocks share.
    compute
        Reads the source.
    layout
        Layout of the map.
    """

    result: TiledImage
    compute: TileUpscaler
    layout: TiledLayout

    def __call__(self, plane: tuple[int, ...], group: int, row: int, column: int) -> Pixels:
        """Compute a block, (samples, height, width)."""
        samples, scale = self.layout.groups[group], self.compute.scale
        blocks = self.layout.grid.rows.core(row), self.layout.grid.columns.core(column)
        targets, inner = [], []
        for block, axis in zip(blocks, (self.layout.y, self.layout.x), strict=True):
            # with this halo, S_f of a window cut at multiples of f equals that of the whole image
            start = max(0, block.start - SHRINK_HALO)
            stop = min(self.layout.shape[axis], block.stop + SHRINK_HALO)
            targets.append(Span(start * scale, stop * scale))
            inner.append(slice(block.start - start, block.stop - start))
        result = self.result.finish(self.result.blend(plane, group, targets[0], targets[1], samples.size))
        planes = torch.from_numpy(result.astype(np.float64))[None]
        shrunk = run_on_engine_thread(lambda: shrink(planes, scale))[0].numpy()
        source = self.compute.read(plane, samples, slice(*blocks[0]), slice(*blocks[1]))
        departure: Pixels = np.abs(shrunk[:, inner[0], inner[1]] - source.astype(np.float64)).astype(np.float32)
        return departure


def _scale_to_image_values(values: ValueMap, unit: Pixels) -> Pixels:
    """Scale a difference of network values to the image's values."""
    unit *= np.float32(values.high - values.low)
    return unit


def _identity(pixels: Pixels) -> Pixels:
    return pixels
