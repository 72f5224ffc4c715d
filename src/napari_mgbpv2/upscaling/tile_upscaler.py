"""The function that computes one tile: what travels to workers and is called wherever pixels are needed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import MGBPv2Error, SourceError
from napari_mgbpv2.tiling import Span
from napari_mgbpv2.values import ValueMap, check_pixels

if TYPE_CHECKING:
    from napari_mgbpv2.engine import Engine, ModelFile
    from napari_mgbpv2.lazy import TiledLayout, TilePixels
    from napari_mgbpv2.network import Network

_making = threading.Lock()


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

        def read(rows: slice, columns: slice) -> npt.NDArray[np.float32]:
            pixels = self.read(plane, samples, rows, columns)
            unit = self.values.to_unit(pixels)
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
        started = engine.start(
            read,
            (grid.rows.span(row), grid.columns.span(column)),
            core,
            (layout.shape[layout.y] // self.scale, layout.shape[layout.x] // self.scale),
            self.scale,
            noise=self.noise,
            seed=self.seed,
            first_channel=self._first_channel(plane, samples),
        )
        stays = self.stays and engine.keeps_results
        if stays and not lost:
            return started
        result = engine.fetch(started)
        for rows, columns, missing, kept in lost[:1]:
            at_rows = np.arange(*core[0]) // self.scale - rows.start
            at_columns = np.arange(*core[1]) // self.scale - columns.start
            nearest = (slice(None), at_rows[:, np.newaxis], at_columns)
            result = np.where(missing[nearest], kept[nearest], result)
        return engine.send(result) if stays else result

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
