"""Lazy images: blend regions from tiles on demand, and present such an image as a Dask array.

`TiledImage` is an array-like over one function that computes a tile. Viewers, the converter and the Dask array read
regions of it. Regions share tiles through a bounded cache. Tiles are NumPy arrays or device arrays, and are blended
where they are. The Dask array is a single layer over a `TiledImage`: its graph holds neither pixels nor weights.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace, device
from dask.base import is_dask_collection
from dask.local import get_sync
from dask.optimization import cull

from napari_mgbpv2.caching import BoundedCache
from napari_mgbpv2.errors import MGBPv2Error, SourceError
from napari_mgbpv2.imaging.values import check_pixels
from napari_mgbpv2.tiling.grid import Span, TileGrid, Weights

Pixels = npt.NDArray[Any]
TilePixels: TypeAlias = Any  # float32, NumPy's or another array with the operators and slices of the array API
Plane = tuple[int, ...]
Tile = tuple[Plane, int, int, int]  # plane, group of samples, row and column in the grid
ComputeTile = Callable[[Plane, int, int, int], TilePixels]
Denormalize = Callable[[TilePixels], Pixels]

CACHE_BYTES = 512 * 2**20  # of tiles that may still be needed
SOURCE_CACHE_BYTES = 128 * 2**20  # of computed chunks of a Dask source, which neighbouring tiles share
CHUNK = 1024  # side of the chunks of the Dask array, in target pixels
MAX_TRACKED_PARTS = 1000  # of a tile, whose coverage is followed
MAX_CHUNKS = 2**20  # beyond it they are larger: Dask lists the names of all of them whenever it computes some


@dataclass(frozen=True)
class TiledLayout:
    """Mapping of the axes of an array to planes, samples and tiles.

    Attributes
    ----------
    shape
        Size of the array along each axis.
    dtype
        Its type.
    y, x
        Which axes are y and x.
    samples
        Which axis holds the samples of a colour pixel; None if there is none.
    groups
        Samples that go through the network together, as ranges of that axis; one group where there is none.
    grid
        Tiles of every plane.
    masked
        Whether it is of masked arrays.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    y: int
    x: int
    samples: int | None
    groups: tuple[Span, ...]
    grid: TileGrid
    masked: bool = False

    @property
    def plane_axes(self) -> tuple[int, ...]:
        """Axes along which planes are counted: all but y, x and the samples."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in (self.y, self.x, self.samples))

    @property
    def planes(self) -> int:
        """Number of planes."""
        return int(np.prod([self.shape[axis] for axis in self.plane_axes], dtype=np.int64))

    @property
    def tiles(self) -> int:
        """Number of tiles of the whole image."""
        return self.planes * len(self.groups) * len(self.grid)


class _ConsumedPixels:
    """Record of the pixels of a tile that have been read at least once.

    Parameters
    ----------
    height, width
        Of the tile.
    """

    def __init__(self, height: int, width: int) -> None:
        self._size = height * width
        self._parts: set[tuple[int, int, int, int]] = set()  # disjoint: first and last row, first and last column

    def add(self, rows: slice, columns: slice) -> None:
        """Record a part that has been read."""
        new = [(rows.start, rows.stop, columns.start, columns.stop)]
        for top, bottom, left, right in self._parts:
            new = [
                part
                for first, last, start, stop in new
                for part in (
                    (first, min(last, top), start, stop),
                    (max(first, bottom), last, start, stop),
                    (max(first, top), min(last, bottom), start, min(stop, left)),
                    (max(first, top), min(last, bottom), max(start, right), stop),
                )
                if part[0] < part[1] and part[2] < part[3]
            ]
        if (
            len(self._parts) < MAX_TRACKED_PARTS
        ):  # of one in more, nothing is noted: it leaves the cache as the oldest does
            self._parts.update(new)

    @property
    def is_complete(self) -> bool:
        """Whether all pixels have been read."""
        return sum((last - first) * (stop - start) for first, last, start, stop in self._parts) == self._size


@dataclass
class TiledImage:
    """Array whose regions are blended from tiles on demand.

    Parameters
    ----------
    layout
        Shape, type and tiles.
    compute_tile
        Function of a plane, a group of samples, and the row and column in the grid. Returns the (samples, core height,
        core width) float32 pixels of the tile's core. Must be picklable if the image is sent to other processes.
    finish
        Function that converts a blended (samples, height, width) float32 region to the image's dtype and copies it to
        host memory. It may overwrite its input.
    cache_bytes
        Maximum size of the tile cache, in bytes.
    retain_consumed
        Whether tiles stay in the cache after all of their pixels have been read, as long as there is room. Viewers
        read the same region repeatedly. Tiles on a GPU are always evicted.
    """

    layout: TiledLayout
    compute_tile: ComputeTile
    finish: Denormalize
    cache_bytes: int = CACHE_BYTES
    retain_consumed: bool = True
    _cache: BoundedCache[Tile, TilePixels] = field(init=False, repr=False)
    _consumed: dict[Tile, _ConsumedPixels] = field(init=False, repr=False, default_factory=dict)
    _consumed_lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._cache = BoundedCache(self.cache_bytes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self.layout.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.layout.shape)

    def __getitem__(self, index: Any) -> Pixels:
        """Compute a region for any basic index of integers, slices and an ellipsis."""
        window, rest = _split_index(index, self.shape)
        pixels: Pixels = self.region(window)[rest]
        return pixels

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Pixels:
        """Compute the whole image."""
        return self[...].astype(dtype or self.dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the cached tiles."""
        return TiledImage, (self.layout, self.compute_tile, self.finish, self.cache_bytes, self.retain_consumed)

    def region(self, window: Sequence[Span]) -> Pixels:
        """Compute the pixels within one span per axis."""
        layout = self.layout
        result = _empty([span.size for span in window], self.dtype, layout.masked)
        if result.size == 0:
            return result
        samples = Span(0, 1) if layout.samples is None else window[layout.samples]
        ranges = [range(*window[axis]) for axis in layout.plane_axes]
        for plane in itertools.product(*ranges):
            for number, group in enumerate(layout.groups):
                first, last = max(group.start, samples.start), min(group.stop, samples.stop)
                if first >= last:
                    continue
                blended = self.blend(plane, number, window[layout.y], window[layout.x], group.size)
                part = self.finish(blended)[first - group.start : last - group.start]
                place: list[Any] = [slice(None)] * self.ndim
                for axis, position in zip(layout.plane_axes, plane, strict=True):
                    place[axis] = position - window[axis].start
                axes = [layout.y, layout.x]
                if layout.samples is None:
                    part = part[0]
                else:
                    axes.insert(0, layout.samples)
                    place[layout.samples] = slice(first - samples.start, last - samples.start)
                result[tuple(place)] = part.transpose(np.argsort(axes))
        return result

    def blend(self, plane: Plane, group: int, rows: Span, columns: Span, samples: int) -> TilePixels:
        """Accumulate the weighted tiles that intersect a region of one plane, always in the same order.

        The order makes the sum reproducible. Subclasses that show incomplete images override this method.
        """
        grid = self.layout.grid
        blended = None
        for row, column in grid.touching(rows, columns):
            key = (plane, group, row, column)
            tile = self._cache.get(key, partial(self.weighted_tile, key))
            inside, outside = [], []
            for core, span in ((grid.rows.core(row), rows), (grid.columns.core(column), columns)):
                first, last = max(core.start, span.start), min(core.stop, span.stop)
                inside.append(slice(first - core.start, last - core.start))
                outside.append(slice(first - span.start, last - span.start))
            if blended is None:
                blended = zeros_like_tile(tile, (samples, rows.size, columns.size))
            target = blended[:, outside[0], outside[1]]
            target += tile[:, inside[0], inside[1]]
            self._mark_consumed(key, inside[0], inside[1], tile)
        return blended

    def weighted_tile(self, tile: Tile) -> TilePixels:
        """Compute the core of a tile, multiplied by the blending window."""
        plane, group, row, column = tile
        grid = self.layout.grid
        pixels = self.compute_tile(plane, group, row, column)
        dtype = "f8" if pixels.dtype == array_namespace(pixels).float64 else "f4"
        rows, columns = grid.rows.weights(row, dtype), grid.columns.weights(column, dtype)
        for part in _overlap_slices(rows):
            pixels[:, part] *= _on_device_of(pixels, rows[part, np.newaxis])
        for part in _overlap_slices(columns):
            pixels[:, :, part] *= _on_device_of(pixels, columns[part])
        return pixels

    def _mark_consumed(self, key: Tile, rows: slice, columns: slice, tile: TilePixels) -> None:
        """Evict a tile first, or at once, when all of its pixels have been read."""
        with self._consumed_lock:
            consumed = self._consumed.setdefault(key, _ConsumedPixels(tile.shape[1], tile.shape[2]))
            consumed.add(rows, columns)
            if not consumed.is_complete:
                return
            del self._consumed[key]
        if self.retain_consumed and isinstance(tile, np.ndarray):
            self._cache.demote(key)
        else:  # the memory of a GPU is for what is still to be done
            self._cache.discard(key)


def zeros_like_tile(tile: TilePixels, shape: tuple[int, ...]) -> TilePixels:
    """Return zeros with the array type, dtype and device of a tile."""
    return array_namespace(tile).zeros(shape, dtype=tile.dtype, device=device(tile))


def _empty(shape: Sequence[int], dtype: np.dtype[Any], masked: bool) -> Pixels:
    """Return an array to fill, with its own mask if it is masked."""
    if not masked:
        return np.empty(shape, dtype)
    return np.ma.MaskedArray(np.zeros(shape, dtype), np.zeros(shape, bool))


def _on_device_of(tile: TilePixels, weights: Weights) -> TilePixels:
    return array_namespace(tile).asarray(weights, device=device(tile))


def _overlap_slices(weights: Weights) -> Iterator[slice]:
    """Yield the slices in which a tile overlaps its neighbours; most of a large tile does not."""
    ends = np.flatnonzero(np.diff(weights < 1, prepend=False, append=False))
    return (slice(int(start), int(stop)) for start, stop in ends.reshape(-1, 2))


def as_dask(image: TiledImage, chunk: int | None = None) -> da.Array:
    """Wrap a tiled image as a Dask array: one layer, one function, no pixel read.

    Parameters
    ----------
    image
        The image.
    chunk
        Side of a chunk along y and x, by default as the size of the image needs it; planes are chunks of their own.
    """
    layout = image.layout
    chunk = chunk or _chunk_for(layout)
    chunks = [1] * image.ndim
    chunks[layout.y] = chunks[layout.x] = chunk
    if layout.samples is not None:
        chunks[layout.samples] = layout.shape[layout.samples]
    # A name of its own: telling equal images apart by their content would read them.
    name = f"mgbpv2-upscale-{uuid.uuid4().hex}"
    meta = _empty((0,) * image.ndim, image.dtype, layout.masked)
    array: da.Array = da.from_array(image, chunks=tuple(chunks), name=name, meta=meta)  # type: ignore[no-untyped-call]
    return array


def _chunk_for(layout: TiledLayout) -> int:
    """Side of chunks, so that their number and with it the time of Dask's own work is bounded."""
    height, width = layout.shape[layout.y], layout.shape[layout.x]
    chunk = CHUNK
    while layout.planes * -(-height // chunk) * -(-width // chunk) > MAX_CHUNKS and chunk < max(height, width):
        chunk *= 2
    return chunk


@dataclass
class DaskSource:
    """Windows of a Dask array, read chunk by chunk without rebuilding its graph for each.

    Slicing a Dask array of many chunks and computing the slice costs time that grows with all of them; taking
    the needed chunks out of the graph by their keys does not.
    """

    array: da.Array
    _graph: Any = field(init=False, repr=False, default=None)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._cache: BoundedCache[tuple[int, ...], Pixels] = BoundedCache(SOURCE_CACHE_BYTES)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return tuple(int(size) for size in self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the Dask array alone."""
        return DaskSource, (self.array,)

    def __getitem__(self, window: tuple[slice, ...]) -> Pixels:
        """Compute the pixels of one slice an axis, each with start, stop and step 1; masked if any chunk of them is."""
        shape = [part.stop - part.start for part in window]
        result = np.empty(shape, self.dtype)
        mask: Pixels | None = None
        touched = []
        for part, sizes in zip(window, self.array.chunks, strict=True):
            ends = np.cumsum(sizes)
            first = int(np.searchsorted(ends, part.start, side="right"))
            last = int(np.searchsorted(ends, part.stop, side="left"))
            touched.append([(number, int(ends[number] - sizes[number])) for number in range(first, last + 1)])
        for blocks in itertools.product(*touched):
            block = tuple(number for number, _ in blocks)
            pixels = self._cache.get(block, partial(self._compute, block))
            inside, outside = [], []
            for part, (_, start), size in zip(window, blocks, pixels.shape, strict=True):
                first, last = max(part.start, start), min(part.stop, start + size)
                inside.append(slice(first - start, last - start))
                outside.append(slice(first - part.start, last - part.start))
            result[tuple(outside)] = np.ma.getdata(pixels[tuple(inside)])
            if isinstance(pixels, np.ma.MaskedArray):
                mask = np.zeros(shape, bool) if mask is None else mask
                mask[tuple(outside)] = np.ma.getmaskarray(pixels[tuple(inside)])
        return result if mask is None else np.ma.MaskedArray(result, mask)

    def _compute(self, block: tuple[int, ...]) -> Pixels:
        with self._lock:
            if self._graph is None:
                self._graph = dict(self.array.__dask_graph__())
        key = (self.array.name, *block)
        needed, _ = cull(self._graph, [key])  # type: ignore[no-untyped-call]
        # in this thread: it may be one of a scheduler's own, whose pool must not wait for itself
        # callbacks=(): the cache that a viewer may have registered with Dask is not made for several threads
        what = f"chunk {block} of the Dask array"
        try:
            computed = get_sync(needed, key, callbacks=())
            pixels: Pixels = computed if isinstance(computed, np.ma.MaskedArray) else np.asarray(computed)
        except (MGBPv2Error, MemoryError):
            raise
        except Exception as error:  # whatever the functions in the graph raise
            raise SourceError(
                f"{what} cannot be computed ({type(error).__name__}: {error}); mend what makes it."
            ) from error
        shape = tuple(sizes[number] for number, sizes in zip(block, self.array.chunks, strict=True))
        check_pixels(what, pixels, shape, self.dtype)
        return pixels


def lazy_source(image: Any) -> Any:
    """Return what reads windows of ``image``: a `DaskSource` for a Dask array, anything else as it is."""
    if is_dask_collection(image) and not isinstance(image, da.Array):  # xarray's, around one
        image = image.data
    return DaskSource(image) if isinstance(image, da.Array) else image


def is_masked(source: Any) -> bool:
    """Tell whether an array, or a `DaskSource`, says that it is of masked arrays."""
    kind = source.array._meta if isinstance(source, DaskSource) else source
    return isinstance(kind, np.ma.MaskedArray)


def _split_index(index: Any, shape: tuple[int, ...]) -> tuple[list[Span], tuple[Any, ...]]:
    """Split a basic index into the spans that enclose it and the index that is left within them."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is Ellipsis for part in parts):
        place = next(number for number, part in enumerate(parts) if part is Ellipsis)
        parts[place : place + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    parts += [slice(None)] * (len(shape) - len(parts))
    if len(parts) > len(shape):
        raise IndexError(f"{len(parts)} indices for an image of {len(shape)} axes")
    spans: list[Span] = []
    rest: list[int | slice] = []
    for part, size in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            numbers = range(*part.indices(size))
            low, high = (min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1]) + 1) if numbers else (0, 0)
            spans.append(Span(low, high))
            backwards = numbers.step < 0
            rest.append(slice(None, None, numbers.step) if not backwards or numbers else slice(0, 0))
        else:
            number = range(size)[part]  # counts from the end where negative, raises beyond it
            spans.append(Span(number, number + 1))
            rest.append(0)
    return spans, tuple(rest)
