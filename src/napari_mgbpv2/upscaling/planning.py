"""The plan of upscaling one image: everything that is decided before anything is computed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.imaging.alpha import visible_colours
from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.tiling.grid import plan_grid
from napari_mgbpv2.upscaling.choosing import (
    fitting_scale,
    image_and_axes,
    open_model,
    preferred_channels,
    sample_groups,
)
from napari_mgbpv2.upscaling.options import UpscaleOptions
from napari_mgbpv2.upscaling.ranges import Measure, choose_range
from napari_mgbpv2.upscaling.tile_upscaler import TileUpscaler

if TYPE_CHECKING:
    from napari_mgbpv2.model.network import Network
    from napari_mgbpv2.upscaling.lazy import ComputeTile, TiledImage, TiledLayout, TilePixels

_DEFAULTS = UpscaleOptions()


@dataclass(frozen=True)
class DenormalizePixels:
    """Takes blended network values, in memory or on a device, to those of an image, which it brings to memory.

    Parameters
    ----------
    values
        The map between them.
    nodata
        The value of missing pixels in an integer type; None where it has none.
    masked
        Whether the image is of masked arrays.
    """

    values: ValueMap
    nodata: int | None = None
    masked: bool = False

    def __call__(self, blended: TilePixels) -> npt.NDArray[Any]:
        """Map (samples, height, width) values to the image's own; they are used as working memory.

        NaN becomes NaN, ``nodata`` or masked, whichever the image has.
        """
        if self.nodata is None and not self.masked:
            if isinstance(blended, np.ndarray):
                return self.values.from_unit(blended)
            from napari_mgbpv2.runtime import to_host_as

            return to_host_as(self.values, blended)
        if not isinstance(blended, np.ndarray):
            from napari_mgbpv2.runtime import to_host

            blended = to_host(blended)
        missing = np.isnan(blended)
        if self.values.dtype.kind != "f":
            blended[missing] = 0
        pixels = self.values.from_unit(blended)
        if self.nodata is not None:
            pixels[missing] = self.nodata
        return np.ma.MaskedArray(pixels, missing) if self.masked else pixels


@dataclass(frozen=True)
class UpscalePlan:
    """All that is decided about upscaling one image.

    Attributes
    ----------
    axes
        Letter of every axis.
    scale
        Upscaling factor.
    layout
        Shape, type, planes and tiles of the result.
    values
        Map between the image's values and the network's.
    model
        Name of the model, for people.
    model_hash
        SHA-256 of its file, or of the weights of a network in memory.
    guard
        Target pixels that a tile loses where it has a neighbour.
    device
        Name of the device that this process would compute on.
    tile_bytes
        Estimated memory that the network needs for a tile, in bytes.
    compute_tile
        Computes one tile.
    notes
        What has been measured or assumed about the image, a sentence each.
    """

    axes: str
    scale: int
    layout: TiledLayout
    values: ValueMap
    model: str
    model_hash: str
    guard: int
    device: str
    tile_bytes: int
    compute_tile: TileUpscaler
    notes: tuple[str, ...] = ()

    @property
    def compute_blended_tile(self) -> TileUpscaler:
        """Computes one tile for those who only add it up with others: where there is a GPU, it stays there."""
        return replace(self.compute_tile, keep_on_device=True)

    @property
    def finish(self) -> DenormalizePixels:
        """Takes what has been added up to pixels of the image."""
        nodata = getattr(self.compute_tile.source, "nodata", None)
        if nodata is not None and not (self.values.dtype.kind in "iu" and _holds(self.values.dtype, nodata)):
            nodata = None
        return DenormalizePixels(self.values, nodata if nodata is None else int(nodata), self.layout.masked)

    def tiled_image(
        self,
        *,
        cache_bytes: int | None = None,
        retain_consumed: bool = True,
        wrap_compute: Callable[[ComputeTile], ComputeTile] | None = None,
    ) -> TiledImage:
        """Make the lazy image.

        Parameters
        ----------
        cache_bytes, retain_consumed
            As `TiledImage` has them.
        wrap_compute
            Wraps the function that computes a tile: for progress and cancelling.
        """
        from napari_mgbpv2.upscaling.lazy import CACHE_BYTES, TiledImage

        compute = wrap_compute(self.compute_blended_tile) if wrap_compute else self.compute_blended_tile
        size = CACHE_BYTES if cache_bytes is None else cache_bytes
        return TiledImage(self.layout, compute, self.finish, size, retain_consumed)


def plan_upscale(image: Any, options: UpscaleOptions = _DEFAULTS, *, measure: Measure | None = None) -> UpscalePlan:
    """Choose and check everything about upscaling an image; no pixel is read unless ``measure`` reads some.

    Parameters
    ----------
    image
        An array, as `upscale` takes it.
    options
        How to upscale it.
    measure
        Return the extremes of the image; called if no value range is given and the model needs one.

    Raises
    ------
    ImageError
        The image, its axes or its value range cannot be upscaled.
    ModelError
        The model is unknown, or does not fit the scale or the image.
    TilingError
        Tile, overlap and guard do not fit together or do not fit the network.
    DeviceError
        The device or precision is not available.
    """
    image, axes = image_and_axes(image, options.axes)
    ValueMap.of(image.dtype, options.value_range)  # an unfit image is reported before a model is loaded
    from napari_mgbpv2.model.network import configurations, weights_hash
    from napari_mgbpv2.runtime import ModelFile, choose_device, choose_precision, run_on_engine_thread
    from napari_mgbpv2.upscaling.lazy import TiledLayout, is_masked, lazy_source

    name, network, file = open_model(options.model, options.scale, preferred_channels(axes, image.dtype))
    configs = configurations(network)
    scale = fitting_scale(name, network.scale, options.scale)
    _check_noise(options.noise, name, network)
    device = choose_device(options.device)
    choose_precision(options.precision, device)
    guard = options.guard
    if guard is None:
        guard = max(config.reach for config in configs) if network.guard is None else network.guard

    follows_offsets = all(config.follows_offsets for config in configs)
    is_homogeneous = not any(config.bias for config in configs)
    chosen_range = choose_range(
        image,
        options.value_range,
        model=name,
        follows_offsets=follows_offsets,
        is_homogeneous=is_homogeneous,
        noise=options.noise,
        measure=measure,
    )
    values, source = chosen_range.values, lazy_source(image)
    shape = tuple(int(size) for size in image.shape)
    y, x = axes.index("y"), axes.index("x")
    samples = axes.index("s") if "s" in axes else None
    groups = sample_groups(name, configs[0].channels, 1 if samples is None else shape[samples])
    grid = plan_grid(
        shape[y] * scale,
        shape[x] * scale,
        configs,
        guard=guard,
        tile=options.tile,
        overlap=options.overlap,
        window=options.window,
    )
    larger = tuple(size * scale if axis in (y, x) else size for axis, size in enumerate(shape))
    layout = TiledLayout(larger, values.dtype, y, x, samples, groups, grid, is_masked(source))
    compute = TileUpscaler(
        source=source if is_masked(source) else visible_colours(source, axes),
        layout=layout,
        scale=scale,
        values=values,
        model=file or run_on_engine_thread(lambda: copy.deepcopy(network)),
        channels=configs[0].channels,
        noise=float(options.noise),
        seed=int(options.seed),
        device=options.device,
        precision=options.precision,
        follows_offsets=follows_offsets,
        is_homogeneous=is_homogeneous,
        range_is_known=chosen_range.is_known,
    )
    return UpscalePlan(
        axes=axes,
        scale=scale,
        layout=layout,
        values=values,
        model=name,
        model_hash=file.sha256 if isinstance(file, ModelFile) else weights_hash(network),
        guard=guard,
        device=device,
        tile_bytes=max(config.bytes_per_pixel for config in configs) * grid.rows.tile * grid.columns.tile,
        compute_tile=compute,
        notes=(chosen_range.note,) if chosen_range.note else (),
    )


def _check_noise(noise: float, name: str, network: Network) -> None:
    """Raise `ModelError` if noise is requested from a network without a noise input."""
    from napari_mgbpv2.model.network import Ensemble, accepts_noise

    if noise and not accepts_noise(network):
        reason = "is an ensemble, which noise does not enter" if isinstance(network, Ensemble) else "has no noise input"
        raise ModelError(f"the model {name} {reason}; use noise=0 or another model.")


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Tell whether an integer type holds a value."""
    limits = np.iinfo(dtype)
    return int(limits.min) <= value <= int(limits.max)
