"""The function that computes one tile: what travels to workers and is called wherever pixels are needed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.alpha import ALPHA_SAMPLES, opaque_value
from napari_mgbpv2.errors import MGBPv2Error, SourceError
from napari_mgbpv2.tiling import Span
from napari_mgbpv2.values import ValueMap, check_pixels

if TYPE_CHECKING:
    from napari_mgbpv2.engine import Engine, ModelFile
    from napari_mgbpv2.lazy import TiledLayout, TilePixels
    from napari_mgbpv2.network import Network

_making = threading.Lock()
_CONSTANT_ALPHA_REACH = 4  # source pixels around one that must be as opaque, or as invisible, for it to stay just that


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
    stays
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
    stays: bool = False
    _engines: dict[bool, Engine] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, plane: tuple[int, ...], group: int, row: int, column: int) -> TilePixels:
        """Compute the core of a tile: (samples, height, width), float32, 0 to 1 for black to white."""
        layout, grid = self.layout, self.layout.grid
        samples = layout.groups[group]
        engine = self._engine(folded=samples.size == 1 and self.channels > 1)
        lost: list[tuple[slice, slice, npt.NDArray[np.bool_], npt.NDArray[np.float32]]] = []
        nodata = getattr(self.source, "nodata", None)
        is_alpha = self._is_alpha(samples)
        values = ValueMap(self.values.dtype, 0.0, opaque_value(self.values.dtype)) if is_alpha else self.values

        def read(rows: slice, columns: slice) -> npt.NDArray[np.float32]:
            pixels = self.read(plane, samples, rows, columns)
            unit = values.to_unit(pixels)
            if pixels.dtype.kind == "f":
                missing, kept = ~np.isfinite(pixels), pixels.astype(np.float32, copy=False)
            elif nodata is None:
                return unit
            else:
                missing, kept = pixels == nodata, unit
            if missing.any():
                lost.append((rows, columns, missing, kept))
                unit = np.where(missing & np.isfinite(kept), np.float32(0), unit)  # black, as NaN is
            return unit

        core = grid.rows.core(row), grid.columns.core(column)
        stays = self.stays and engine.keeps_results
        constant = self._constant_alpha(plane, samples, core) if is_alpha else None
        if constant is not None and np.isfinite(constant).all():  # nothing is left for the network
            result = self._as_image_values(constant[np.newaxis], values)
            return engine.send(result) if stays else result
        started = engine.start(
            read,
            (grid.rows.span(row), grid.columns.span(column)),
            core,
            (layout.shape[layout.y] // self.scale, layout.shape[layout.x] // self.scale),
            self.scale,
            noise=self.noise_of(samples),
            seed=self.seed,
            first_channel=self._first_channel(plane, samples),
        )
        if stays and not lost and constant is None:
            return started
        result = engine.fetch(started)
        if constant is not None:
            result = self._as_image_values(np.where(np.isfinite(constant), constant, result), values)
        for rows, columns, missing, kept in lost[:1]:
            at_rows = np.arange(*core[0]) // self.scale - rows.start
            at_columns = np.arange(*core[1]) // self.scale - columns.start
            nearest = (slice(None), at_rows[:, np.newaxis], at_columns)
            result = np.where(missing[nearest], kept[nearest], result)
        return engine.send(result) if stays else result

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

    def _as_image_values(self, unit: npt.NDArray[np.float32], values: ValueMap) -> npt.NDArray[np.float32]:
        """Take network values of another map to those of the image's own."""
        if (values.low, values.high) == (self.values.low, self.values.high):
            return unit
        span = self.values.high - self.values.low
        scaled = unit * np.float32((values.high - values.low) / span)
        return scaled + np.float32((values.low - self.values.low) / span)

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
        pixels = self._pixels(tuple(window))
        return pixels.transpose(*layout.plane_axes, *order).reshape(
            samples.size, rows.stop - rows.start, columns.stop - columns.start
        )

    def _pixels(self, window: tuple[slice, ...]) -> npt.NDArray[Any]:
        """Read what is at a window of the source, whoever has written it."""
        what = f"the image at {', '.join(f'{part.start}:{part.stop}' for part in window)}"
        try:
            pixels = np.asarray(self.source[window])
        except (MGBPv2Error, MemoryError):
            raise
        except Exception as error:
            raise SourceError(
                f"{what} cannot be read ({type(error).__name__}: {error}); mend where it comes from."
            ) from error
        check_pixels(what, pixels, tuple(part.stop - part.start for part in window), self.values.dtype)
        return pixels

    def _first_channel(self, plane: tuple[int, ...], samples: Span) -> int:
        """Number of a plane's first sample among those of the whole image: the noise of each is its own."""
        layout = self.layout
        number = 0
        for axis, position in zip(layout.plane_axes, plane, strict=True):
            number = number * layout.shape[axis] + position
        return number * layout.groups[-1].stop + samples.start

    def _engine(self, *, folded: bool) -> Engine:
        from napari_mgbpv2.engine import ModelFile, choose_device, choose_precision, engine_of, get_engine

        with _making:  # whoever asks meanwhile waits: preparing a network takes time and memory
            if folded not in self._engines:
                device = choose_device(self.device)
                precision = choose_precision(self.precision, device)
                self._engines[folded] = (
                    get_engine(self.model, folded, device, precision)
                    if isinstance(self.model, ModelFile)
                    else engine_of(self.model, folded, device, precision)
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
