"""`upscale`: picks model and device, plans the tiles, and hands the engine to the lazy array.

`plan_upscale` does the choosing and checking, for the converter and the viewer, too; nothing of the image is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_mgbpv2.upscaling.choosing import image_and_axes
from napari_mgbpv2.upscaling.options import UpscaleOptions
from napari_mgbpv2.upscaling.planning import UpscalePlan, plan_upscale
from napari_mgbpv2.upscaling.tile_upscaler import TileUpscaler

if TYPE_CHECKING:
    import dask.array as da

    from napari_mgbpv2.upscaling.options import Model

__all__ = ["TileUpscaler", "UpscaleOptions", "UpscalePlan", "image_and_axes", "plan_upscale", "upscale"]


def upscale(
    image: Any,
    scale: int | None = None,
    *,
    model: Model | None = None,
    axes: str | None = None,
    noise: float = 0.0,
    seed: int = 0,
    tile: int | None = None,
    overlap: int | None = None,
    guard: int | None = None,
    window: str = "hamming",
    value_range: tuple[float, float] | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> da.Array:
    """Upscale an image of any size, lazily.

    Nothing is computed or read until the result is. What then is computed is the same for any chunking of the image
    or of the result, any scheduler and any number of workers, bit for bit on one kind of device.

    Parameters
    ----------
    image
        A Dask, Zarr, NumPy or xarray array, a tifffile Zarr store, or anything else that has ``shape`` and ``dtype``
        and gives NumPy arrays for slices. Booleans, integers, or floats of up to 64 bits.
    scale
        Upscaling factor along y and x; by default the model's, or 4 where no model is given either.
    model
        Name of a packaged model, path of a model file, a card of `list_models`, or a network as `load_model` gives
        it; by default the packaged model for ``scale``: the one for photographs, which takes colours, or, for an
        image of more than 8 bits or with an axis of channels ("c"), and no colours, the one for single-channel
        microscopy, where the scale has one.
    axes
        One letter an axis: "y" and "x" are upscaled; "s" holds the samples of a colour pixel; channels ("c"), z, t
        and any other are carried along. By default the names that an xarray or Zarr array has, else guessed from
        the shape: see `napari_mgbpv2.imaging.axes.guess_axes`.
    noise
        Amplitude W of the noise input: 0 for fidelity, 1 for perceptual quality. Only for models that have one.
    seed
        Of the noise, which is a function of it and of the position in the result.
    tile
        Largest tile in target pixels; tiles are made equal and as small as their number allows.
    overlap
        Least number of target pixels that neighbouring tiles share, guards included.
    guard
        Target pixels at the border of a tile that are discarded because the border spoils them. By default as
        measured for the model's weights, or the network's whole reach where nobody has measured. 0 with
        ``window="hamming"`` blends as the paper does.
    window
        How overlapping tiles are blended: "hamming", "triangle" or "flat".
    value_range
        Values of black and white, which the network knows as 0 and 1: by default 0 and the largest value of an
        integer type, 0 and 1 for floats. Nothing is clipped to it. Models that follow any values need none. For others,
        signed integers need one, unless they are in memory and can be measured, and values below black are enlarged
        bicubically with a `ValueRangeWarning` where none is given.
    device
        "cuda", "cuda:1", "mps", "cpu"; by default the fastest kind on the machine that computes.
    precision
        "float32" (exact, the default), "bfloat16" or "float16".

    Returns
    -------
    dask.array.Array
        Same axes and dtype, ``scale`` times larger in y and x. Integers are rounded and clipped to their type.
        NaN and infinity stay on the target pixels of their source pixel.

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
    from napari_mgbpv2.upscaling.lazy import as_dask

    options = UpscaleOptions(
        scale=scale,
        model=model,
        axes=axes,
        noise=noise,
        seed=seed,
        tile=tile,
        overlap=overlap,
        guard=guard,
        window=window,
        value_range=value_range,
        device=device,
        precision=precision,
    )
    return as_dask(plan_upscale(image, options).tiled_image())
