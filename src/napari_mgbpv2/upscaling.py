"""`upscale`: picks model and device, plans the tiles, and hands the engine to the lazy array.

`plan_upscale` does the choosing and checking, for the converter and the viewer, too; nothing of the image is read.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.axes import check_axes, guess_axes
from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.model_zoo import ModelCard, default_model
from napari_mgbpv2.tiling import Span, plan_grid
from napari_mgbpv2.values import ValueMap

if TYPE_CHECKING:
    import dask.array as da

    from napari_mgbpv2.engine import Engine, ModelFile
    from napari_mgbpv2.lazy import ComputeTile, TiledImage, TiledLayout
    from napari_mgbpv2.network import Network

    Model = str | os.PathLike[str] | ModelCard | Network

LARGEST_SCALE = 64


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
        Upscaling factor along y and x; by default the model's.
    model
        Name of a packaged model, path of a model file, a card of `list_models`, or a network as `load_model` gives
        it; by default the packaged model for ``scale``.
    axes
        One letter an axis: "y" and "x" are upscaled; "s" holds the samples of a colour pixel; channels ("c"), z, t
        and any other are carried along. By default the names that an xarray or Zarr array has, else guessed from
        the shape: see `napari_mgbpv2.axes.guess_axes`.
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
        integer type, 0 and 1 for floats. Nothing is clipped to it.
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
    from napari_mgbpv2.lazy import as_dask

    plan = plan_upscale(
        image,
        scale,
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
    return as_dask(plan.tiled_image())


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
        SHA-256 of its file; empty for a network in memory.
    guard
        Target pixels that a tile loses where it has a neighbour.
    tile_bytes
        Estimated memory that the network needs for a tile, in bytes.
    compute_tile
        Computes one tile.
    """

    axes: str
    scale: int
    layout: TiledLayout
    values: ValueMap
    model: str
    model_hash: str
    guard: int
    tile_bytes: int
    compute_tile: TileUpscaler

    def tiled_image(
        self,
        *,
        cache_bytes: int | None = None,
        keep_served: bool = True,
        around: Callable[[ComputeTile], ComputeTile] | None = None,
    ) -> TiledImage:
        """Make the lazy image.

        Parameters
        ----------
        cache_bytes, keep_served
            As `TiledImage` has them.
        around
            Wraps the function that computes a tile: for progress and cancelling.
        """
        from napari_mgbpv2.lazy import CACHE_BYTES, TiledImage

        compute = around(self.compute_tile) if around else self.compute_tile
        size = CACHE_BYTES if cache_bytes is None else cache_bytes
        return TiledImage(self.layout, compute, self.values.from_unit, size, keep_served)


def plan_upscale(
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
) -> UpscalePlan:
    """Choose and check everything about upscaling an image; parameters and errors as `upscale` has them."""
    image, axes = image_and_axes(image, axes)
    values = ValueMap.of(image.dtype, value_range)
    _check_scale(scale)
    from napari_mgbpv2.engine import ModelFile, choose_device, choose_precision
    from napari_mgbpv2.lazy import TiledLayout, lazy_source
    from napari_mgbpv2.network import configurations

    name, network, file = _open_model(model, scale)
    configs = configurations(network)
    scale = _fitting_scale(name, network.scale, scale)
    if noise and not configs[0].noise_channels:
        raise ModelError(f"the model {name} has no noise input; use noise=0 or another model.")
    if device is not None:
        choose_device(device)
    choose_precision(precision, device or choose_device())
    if guard is None:
        guard = max(config.reach for config in configs) if network.guard is None else network.guard

    shape = tuple(int(size) for size in image.shape)
    y, x = axes.index("y"), axes.index("x")
    samples = axes.index("s") if "s" in axes else None
    groups = _groups(name, configs[0].channels, 1 if samples is None else shape[samples])
    grid = plan_grid(
        shape[y] * scale, shape[x] * scale, configs, guard=guard, tile=tile, overlap=overlap, window=window
    )
    larger = tuple(size * scale if axis in (y, x) else size for axis, size in enumerate(shape))
    layout = TiledLayout(larger, values.dtype, y, x, samples, groups, grid)
    compute = TileUpscaler(
        source=lazy_source(image),
        layout=layout,
        scale=scale,
        values=values,
        model=file or copy.deepcopy(network),
        channels=configs[0].channels,
        noise=float(noise),
        seed=int(seed),
        device=device,
        precision=precision,
    )
    return UpscalePlan(
        axes=axes,
        scale=scale,
        layout=layout,
        values=values,
        model=name,
        model_hash=file.sha256 if isinstance(file, ModelFile) else "",
        guard=guard,
        tile_bytes=max(config.bytes_per_pixel for config in configs) * grid.rows.tile * grid.columns.tile,
        compute_tile=compute,
    )


@dataclass
class TileUpscaler:
    """Computes one tile: reads the source, runs the engine. It travels to workers with a model's name, not its weights.

    Parameters
    ----------
    source
        Gives pixels for one slice an axis.
    layout
        Of the result.
    scale, values, noise, seed, device, precision
        As `upscale` has them.
    model
        A file, or a network in memory.
    channels
        Channels that the network takes.
    """

    source: Any
    layout: TiledLayout
    scale: int
    values: ValueMap
    model: ModelFile | Network
    channels: int
    noise: float
    seed: int
    device: str | None
    precision: str | None
    _engines: dict[bool, Engine] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, plane: tuple[int, ...], group: int, row: int, column: int) -> npt.NDArray[np.float32]:
        """Compute the core of a tile: (samples, height, width), float32, 0 to 1 for black to white."""
        layout, grid = self.layout, self.layout.grid
        samples = layout.groups[group]
        engine = self._engine(folded=samples.size == 1 and self.channels > 1)
        lost: list[tuple[slice, slice, npt.NDArray[Any]]] = []

        def read(rows: slice, columns: slice) -> npt.NDArray[np.float32]:
            pixels = self.read(plane, samples, rows, columns)
            if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
                lost.append((rows, columns, pixels))
            return self.values.to_unit(pixels)

        core = grid.rows.core(row), grid.columns.core(column)
        result = engine.run(
            read,
            (grid.rows.span(row), grid.columns.span(column)),
            core,
            (layout.shape[layout.y] // self.scale, layout.shape[layout.x] // self.scale),
            self.scale,
            noise=self.noise,
            seed=self.seed,
            first_channel=self._first_channel(plane, samples),
        )
        for rows, columns, pixels in lost[:1]:
            at_rows = np.arange(*core[0]) // self.scale - rows.start
            at_columns = np.arange(*core[1]) // self.scale - columns.start
            nearest = pixels[:, at_rows][:, :, at_columns]
            result = np.where(np.isfinite(nearest), result, nearest).astype(np.float32, copy=False)
        return result

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_engines": {}}

    def read(self, plane: tuple[int, ...], samples: Span, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Read (samples, rows, columns) source pixels of one plane."""
        layout = self.layout
        window = [slice(0, 1)] * len(layout.shape)
        for axis, position in zip(layout.plane_axes, plane, strict=True):
            window[axis] = slice(position, position + 1)
        window[layout.y], window[layout.x] = rows, columns
        order = [layout.y, layout.x]
        if layout.samples is not None:
            window[layout.samples] = slice(*samples)
            order.insert(0, layout.samples)
        pixels = np.asarray(self.source[tuple(window)])
        return pixels.transpose(*layout.plane_axes, *order).reshape(
            samples.size, rows.stop - rows.start, columns.stop - columns.start
        )

    def _first_channel(self, plane: tuple[int, ...], samples: Span) -> int:
        """Number of a plane's first sample among those of the whole image: the noise of each is its own."""
        layout = self.layout
        number = 0
        for axis, position in zip(layout.plane_axes, plane, strict=True):
            number = number * layout.shape[axis] + position
        return number * layout.groups[-1].stop + samples.start

    def _engine(self, *, folded: bool) -> Engine:
        if folded in self._engines:
            return self._engines[folded]
        from napari_mgbpv2.engine import ModelFile, choose_device, choose_precision, engine_of, get_engine

        device = choose_device(self.device)
        precision = choose_precision(self.precision, device)
        made = (
            get_engine(self.model, folded, device, precision)
            if isinstance(self.model, ModelFile)
            else engine_of(self.model, folded, device, precision)
        )
        return self._engines.setdefault(folded, made)


def image_and_axes(image: Any, axes: str | None) -> tuple[Any, str]:
    """Return an array-like whose shape has been checked, and its axes: as given, as it names them, or guessed."""
    if not hasattr(image, "shape") or not hasattr(image, "dtype"):
        if isinstance(image, (list, tuple)):
            image = np.asarray(image)
        else:
            from napari_mgbpv2.sources import as_array

            image = as_array(image)
    shape = tuple(image.shape)
    if len(shape) < 2:
        raise ImageError(f"the image has {len(shape)} axes, shape {shape}; it must have at least y and x.")
    # Dask's unknown sizes are NaN, which is not greater than anything
    if not all(size > 0 for size in shape):
        raise ImageError(f"the image has the shape {shape}; every axis must have a known size of at least 1.")
    if axes is not None:
        return image, check_axes(axes, shape)
    names = getattr(image, "dims", None) or getattr(getattr(image, "metadata", None), "dimension_names", None)
    letters = "".join(str(each)[:1].lower() for each in names or ())
    named = len(letters) == len(shape) == len(set(letters)) and {"y", "x"} <= set(letters)
    return image, letters if named else guess_axes(shape)


def _check_scale(scale: object) -> None:
    if scale is None:
        return
    whole = isinstance(scale, (int, np.integer)) and not isinstance(scale, bool)
    if not whole or not 1 <= int(scale) <= LARGEST_SCALE:  # type: ignore[call-overload]
        raise ImageError(f"scale is {scale!r}; it must be a whole number of at least 1, such as 2, 4, 8 or 16.")


def _open_model(model: Model | None, scale: int | None) -> tuple[str, Network, ModelFile | None]:
    """Return a model's name, its network, and its file where it has one."""
    from napari_mgbpv2.checkpoints import load_model, locate
    from napari_mgbpv2.engine import ModelFile
    from napari_mgbpv2.network import Ensemble, MGBPv2

    if model is None:
        model = default_model(scale)
    if isinstance(model, ModelCard):
        model = model.path
    if isinstance(model, (str, os.PathLike)):
        path = locate(model).resolve()
        return path.stem, load_model(path), ModelFile.of(path)
    if not isinstance(model, (MGBPv2, Ensemble)):
        raise ModelError(f"model is {model!r}; give a model's name, a file, or a network that load_model has given.")
    return type(model).__name__, model, None


def _fitting_scale(name: str, trained: int | None, wanted: int | None) -> int:
    if wanted is None and trained is None:
        raise ModelError(f"the model {name} does not say its scale; give one.")
    if None not in (wanted, trained) and wanted != trained:
        raise ModelError(f"the model {name} upscales {trained} times, not {wanted}; choose another model or scale.")
    return int(wanted or trained or 0)


def _groups(name: str, channels: int, samples: int) -> tuple[Span, ...]:
    """Divide the samples of a pixel into what goes through the network together.

    A network of several channels takes that many samples at once; a further one (alpha), or a single one (grey),
    goes through it folded to one channel.
    """
    if channels == 1 or samples <= 2:
        if channels not in (1, 3) and samples != channels:
            raise ModelError(_misfit(name, channels, samples))
        together = samples if samples == channels else 1
    elif channels == samples or (channels, samples) == (3, 4):
        together = channels
    else:
        raise ModelError(_misfit(name, channels, samples))
    starts = range(0, samples, together)
    return tuple(Span(start, min(start + together, samples)) for start in starts)


def _misfit(name: str, channels: int, samples: int) -> str:
    return (
        f"the model {name} takes {channels} channels and a pixel of the image has {samples}; "
        'choose a model of as many, or, if they are independent, name their axis "c".'
    )
