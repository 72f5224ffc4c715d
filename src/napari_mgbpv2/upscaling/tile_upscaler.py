"""The function that computes one tile: what travels to workers and is called wherever pixels are needed."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from napari_mgbpv2.errors import MGBPv2Error, SourceError, ValueRangeWarning
from napari_mgbpv2.imaging.alpha import ALPHA_SAMPLES, opaque_value
from napari_mgbpv2.imaging.values import TileFrame, ValueMap, check_pixels, fill_missing
from napari_mgbpv2.tiling.grid import Span

if TYPE_CHECKING:
    from napari_mgbpv2.model.network import Network
    from napari_mgbpv2.runtime import Engine, ModelFile
    from napari_mgbpv2.upscaling.lazy import TiledLayout, TilePixels

_making = threading.Lock()
_CONSTANT_ALPHA_REACH = 4  # source pixels around one that must be as opaque, or as invisible, for it to stay just that

LEAST_FILL_STEPS, MOST_FILL_STEPS = 4, 32  # source pixels around known ones within which missing ones are filled


class _TileSource:
    """What one tile reads of the source, and what its network is not given of it.

    Parameters
    ----------
    compute
        Whose tile it is.
    plane, samples
        Where it lies.
    is_alpha
        Whether the samples are alpha alone.
    """

    def __init__(self, compute: TileUpscaler, plane: tuple[int, ...], samples: Span, *, is_alpha: bool) -> None:
        self._compute, self._plane, self._samples, self._is_alpha = compute, plane, samples, is_alpha
        dtype = compute.values.dtype
        # alpha goes from invisible to opaque, whatever is black and white in the colours
        self._values = ValueMap(dtype, 0.0, float(opaque_value(dtype))) if is_alpha else compute.values
        self._window: tuple[slice, slice] | None = None  # of the first network's, which holds the core
        self._frame: TileFrame | None = None
        self._marks: npt.NDArray[Any] | None = None  # NaN and infinities at missing pixels
        self._missing: npt.NDArray[np.bool_] | None = None
        self._rest: npt.NDArray[Any] | None = None  # what lies beyond the values that the network knows

    @property
    def is_plain(self) -> bool:
        """Whether the network has been given all there is."""
        return self._missing is None and self._rest is None

    def read(self, rows: slice, columns: slice) -> npt.NDArray[np.float32]:
        """Read (samples, rows, columns) for a network."""
        compute, is_first = self._compute, self._window is None
        pixels, missing = compute.read_with_missing(self._plane, self._samples, rows, columns)
        if is_first:
            self._window, self._missing = (rows, columns), missing
            if missing is not None:
                with np.errstate(over="ignore"):  # of what stays, there are infinities alone
                    self._marks = np.where(np.isinf(pixels), pixels, np.nan).astype(np.float32)
            if compute.values.dtype.itemsize >= np.dtype(np.float32).itemsize and not self._is_alpha:
                self._frame = compute.values.choose_frame(
                    pixels,
                    missing,
                    follows_offsets=compute.follows_offsets,
                    follows_scaling=compute.is_homogeneous and not compute.noise,
                )
        unit = self._to_network(pixels) if missing is None else self._filled(rows, columns)
        known = unit if compute.follows_offsets else np.clip(unit, 0, None if compute.is_homogeneous else 1)
        if known is not unit and (known != unit).any():
            if is_first:
                self._rest = unit - known
                present = pixels if missing is None else pixels[~missing]
                compute._warn(float(present.min()), float(present.max()))
            unit = known
        with np.errstate(over="ignore"):
            return unit.astype(np.float32, copy=False)

    def restore_range(self, result: TilePixels) -> TilePixels:
        """Take what the network gives to 0 to 1 for black to white; it is used as working memory where it can be."""
        values = self._compute.values
        frame = self._frame or TileFrame(self._values.low, self._values.high - self._values.low)
        if self._compute.tile_dtype == np.float64:
            namespace = array_namespace(result)
            result = namespace.astype(result, namespace.float64)
        if (frame.offset, frame.extent) != (values.low, values.high - values.low):
            result *= frame.extent / (values.high - values.low)
            result += (frame.offset - values.low) / (values.high - values.low)
        return result

    def restore(self, result: npt.NDArray[Any], core: tuple[Span, Span]) -> npt.NDArray[Any]:
        """Take what the network gives for a core to 0 to 1, and add what it has not been given."""
        compute = self._compute
        assert self._window is not None
        if self._rest is not None:
            from napari_mgbpv2.runtime import enlarge

            result = result + enlarge(self._rest, self._window, core, compute._source_shape, compute.scale)
        restored: npt.NDArray[Any] = self.restore_range(result)
        if self._missing is not None:
            rows, columns = self._window
            at_rows = np.arange(*core[0]) // compute.scale - rows.start
            at_columns = np.arange(*core[1]) // compute.scale - columns.start
            nearest = (slice(None), at_rows[:, np.newaxis], at_columns)
            assert self._marks is not None
            restored = np.where(self._missing[nearest], self._marks[nearest].astype(restored.dtype), restored)
        return restored

    def _to_network(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._values.to_unit(pixels) if self._frame is None else self._frame.to_network(pixels)

    def _filled(self, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Read more than a window, so that what fills it is the same whichever tile asks for it."""
        compute = self._compute
        steps = compute._fill_steps
        larger = [
            slice(max(0, part.start - steps), min(size, part.stop + steps))
            for part, size in zip((rows, columns), compute._source_shape, strict=True)
        ]
        pixels, missing = compute.read_with_missing(self._plane, self._samples, *larger)
        assert missing is not None
        with np.errstate(invalid="ignore"):
            unit = fill_missing(self._to_network(pixels), missing, steps)
        inner = [
            slice(part.start - wide.start, part.stop - wide.start)
            for part, wide in zip((rows, columns), larger, strict=True)
        ]
        return unit[:, inner[0], inner[1]]


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
    follows_offsets
        Whether the network gives f(x + b) = f(x) + b. One that does not never gets values below black: they are
        enlarged bicubically, and what the network makes of the rest is added.
    is_homogeneous
        Whether the network gives f(a x) = a f(x) for a > 0 where it gets no noise. One that does not gets no values
        above white either.
    range_is_known
        Whether somebody has given the values of black and white, or they have been measured. If not, a warning tells
        of values that the network does not get, once.
    keep_on_device
        Whether a tile may stay on a device with memory of its own, to be blended there.
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
    follows_offsets: bool = False
    is_homogeneous: bool = False
    range_is_known: bool = True
    keep_on_device: bool = False
    _engines: dict[bool, Engine] = field(default_factory=dict, repr=False, compare=False)
    _has_warned: bool = field(default=False, init=False, repr=False, compare=False)

    @property
    def tile_dtype(self) -> np.dtype[Any]:
        """Type of a tile: float64 where float32 cannot hold the image's values beside their offset."""
        wide = self.values.needs_float64 and (self.follows_offsets or self.values.dtype.kind == "f")
        return np.dtype(np.float64 if wide else np.float32)

    def __call__(self, plane: tuple[int, ...], group: int, row: int, column: int) -> TilePixels:
        """Compute the core of a tile: (samples, height, width), `tile_dtype`, 0 to 1 for black to white.

        Missing pixels are NaN, infinite ones infinite.
        """
        layout, grid = self.layout, self.layout.grid
        samples = layout.groups[group]
        engine = self._engine(folded=samples.size == 1 and self.channels > 1)
        is_alpha = self._is_alpha(samples)
        core = grid.rows.core(row), grid.columns.core(column)
        keep_on_device = self.keep_on_device and engine.keep_on_device
        constant = self._constant_alpha(plane, samples, core) if is_alpha else None
        tile = _TileSource(self, plane, samples, is_alpha=is_alpha)
        if constant is not None and np.isfinite(constant).all():  # nothing is left for the network
            result = tile.restore_range(constant[np.newaxis])
            return engine.to_device(result) if keep_on_device else result
        started = engine.submit(
            tile.read,
            (grid.rows.span(row), grid.columns.span(column)),
            core,
            self._source_shape,
            self.scale,
            noise=self.noise_of(samples),
            seed=self.seed,
            first_channel=self._first_channel(plane, samples),
        )
        if keep_on_device and tile.is_plain and constant is None:
            return tile.restore_range(started)
        result = engine.to_host(started)
        if constant is not None:
            result = np.where(np.isfinite(constant), constant, result)
        finished: TilePixels = tile.restore(result, core)
        return engine.to_device(finished) if keep_on_device else finished

    @property
    def _source_shape(self) -> tuple[int, int]:
        """Height and width of the source."""
        layout = self.layout
        return layout.shape[layout.y] // self.scale, layout.shape[layout.x] // self.scale

    @property
    def _fill_steps(self) -> int:
        """Source pixels within which what stands for missing pixels can be seen in others."""
        guard = max(self.layout.grid.rows.guard, self.layout.grid.columns.guard)
        return min(max(-(-guard // self.scale), LEAST_FILL_STEPS), MOST_FILL_STEPS)

    def _warn(self, lowest: float, highest: float) -> None:
        """Tell once of values that the network does not get."""
        if self.range_is_known or self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            f"the image holds values from {lowest:g} to {highest:g}, and the model knows those "
            f"{'from' if self.is_homogeneous else 'between'} {self.values.low:g} "
            f"{'on' if self.is_homogeneous else f'and {self.values.high:g}'}: what lies beyond is enlarged "
            f"bicubically, without details. Give value_range=({lowest:g}, {highest:g}), or wider for the whole image.",
            ValueRangeWarning,
            stacklevel=2,
        )

    def noise_of(self, samples: Span) -> float:
        """Return the amplitude of the noise for a group of samples: none for alpha, where it would make holes."""
        return 0.0 if self._is_alpha(samples) else self.noise

    def _is_alpha(self, samples: Span) -> bool:
        """Return whether a group of samples is alpha alone."""
        layout = self.layout
        count = 1 if layout.samples is None else layout.shape[layout.samples]
        return count in ALPHA_SAMPLES and samples == (count - 1, count)

    def _constant_alpha(
        self, plane: tuple[int, ...], samples: Span, core: tuple[Span, Span]
    ) -> npt.NDArray[np.float32]:
        """Return alpha where it needs no network: (height, width), 1 amid opaque pixels, 0 amid invisible ones, or NaN.

        A network comes near to a constant, but in 16 bits and floats not to the same value.
        """
        layout, reach = self.layout, _CONSTANT_ALPHA_REACH
        spans = []
        for part, axis in zip(core, (layout.y, layout.x), strict=True):
            start, stop = part.start // self.scale, -(-part.stop // self.scale)
            spans.append((max(0, start - reach), min(layout.shape[axis] // self.scale, stop + reach), start, stop))
        alpha = self.read(plane, samples, *(slice(first, last) for first, last, _, _ in spans))[0]
        inside = tuple(slice(start - first, stop - first) for first, _, start, stop in spans)
        result = np.full((spans[0][3] - spans[0][2], spans[1][3] - spans[1][2]), np.nan, np.float32)
        for other, value in ((alpha < opaque_value(alpha.dtype), 1.0), (alpha > 0, 0.0)):
            result[~_within_reach(other | np.isnan(alpha), reach)[inside]] = value
        rows, columns = (
            np.arange(*part) // self.scale - start for part, (_, _, start, _) in zip(core, spans, strict=True)
        )
        return result[rows[:, np.newaxis], columns]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_engines": {}}

    def read(self, plane: tuple[int, ...], samples: Span, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Read (samples, rows, columns) source pixels of one plane; masked ones are NaN, or 0 in types without NaN."""
        return self.read_with_missing(plane, samples, rows, columns)[0]

    def read_with_missing(
        self, plane: tuple[int, ...], samples: Span, rows: slice, columns: slice
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Read (samples, rows, columns) source pixels of one plane, and which of them are missing.

        Returns
        -------
        pixels, missing
            Missing are those that are masked, not finite, or have the source's ``nodata`` value; None where all are
            there.

        Raises
        ------
        SourceError
            The source cannot be read, gives something else than it says, or masks pixels without saying that it does.
        """
        layout = self.layout
        window = [slice(0, 1)] * len(layout.shape)
        for axis, position in zip(layout.plane_axes, plane, strict=True):
            window[axis] = slice(position, position + 1)
        window[layout.y], window[layout.x] = rows, columns
        order = [layout.y, layout.x]
        if layout.samples is not None:
            window[layout.samples] = slice(*samples)
            order.insert(0, layout.samples)
        found = self._pixels(tuple(window)).transpose(*layout.plane_axes, *order)
        found = found.reshape(samples.size, rows.stop - rows.start, columns.stop - columns.start)
        pixels, nodata = np.ma.getdata(found), getattr(self.source, "nodata", None)
        missing: npt.NDArray[np.bool_] | None = None
        if pixels.dtype.kind == "f":
            missing = ~np.isfinite(pixels)
        elif nodata is not None:
            missing = pixels == nodata
        if np.ma.is_masked(found):
            mask = np.ma.getmaskarray(found)
            if pixels.dtype.kind != "f" and not layout.masked:
                raise SourceError(
                    "pixels of the image are masked, which its array does not say beforehand; make it an array of "
                    "masked arrays throughout (dask.array.ma), or fill them."
                )
            pixels = np.where(mask, np.nan if pixels.dtype.kind == "f" else 0, pixels).astype(pixels.dtype, copy=False)
            missing = mask if missing is None else missing | mask
        return pixels, missing if missing is not None and missing.any() else None

    def _pixels(self, window: tuple[slice, ...]) -> npt.NDArray[Any]:
        """Read what is at a window of the source, whoever has written it; a masked array where it is one."""
        what = f"the image at {', '.join(f'{part.start}:{part.stop}' for part in window)}"
        try:
            found = self.source[window]
            pixels: npt.NDArray[Any] = found if isinstance(found, np.ma.MaskedArray) else np.asarray(found)
        except (MGBPv2Error, MemoryError):
            raise
        except Exception as error:
            raise SourceError(
                f"{what} cannot be read ({type(error).__name__}: {error}); mend where it comes from."
            ) from error
        check_pixels(what, pixels, tuple(part.stop - part.start for part in window), self.values.dtype)
        return pixels

    def _first_channel(self, plane: tuple[int, ...], samples: Span) -> int:
        """Return the number of a plane's first sample among all samples of the image; each sample has its own noise."""
        layout = self.layout
        number = 0
        for axis, position in zip(layout.plane_axes, plane, strict=True):
            number = number * layout.shape[axis] + position
        return number * layout.groups[-1].stop + samples.start

    def _engine(self, *, folded: bool) -> Engine:
        from napari_mgbpv2.runtime import ModelFile, choose_device, choose_precision, get_engine, make_engine

        with _making:  # whoever asks meanwhile waits: preparing a network takes time and memory
            if folded not in self._engines:
                device = choose_device(self.device)
                precision = choose_precision(self.precision, device)
                self._engines[folded] = (
                    get_engine(self.model, folded, device, precision)
                    if isinstance(self.model, ModelFile)
                    else make_engine(self.model, folded, device, precision)
                )
            return self._engines[folded]


def _within_reach(mask: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """Return which elements of a (height, width) mask have a true one at most ``reach`` rows and columns away."""
    for axis in (0, 1):
        spread = mask.copy()
        for step in range(1, min(reach, mask.shape[axis] - 1) + 1):
            before, after = [slice(None)] * 2, [slice(None)] * 2
            before[axis], after[axis] = slice(None, -step), slice(step, None)
            spread[tuple(after)] |= mask[tuple(before)]
            spread[tuple(before)] |= mask[tuple(after)]
        mask = spread
    return mask
