"""Layout of a written image: format, calibration, and the shapes of levels, chunks and shards."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.imaging.alpha import ALPHA_SAMPLES

Region = tuple[slice, ...]

SMALLEST = 256  # the last level of the pyramid has at most this many pixels along y and x
FORMATS = ("0.5", "0.4", "zarr")
CODECS = ("zstd", "lz4", "zstd-9", "none")


@dataclass(frozen=True)
class ImageLayout:
    """Layout of a written image: its shape, calibration, and division into chunks and shards.

    Attributes
    ----------
    shape
        Size of level 0 along each axis.
    dtype
        An integer type, or a float of 16, 32 or 64 bits, in native byte order.
    axes
        One letter per axis out of "tczyx", in that order; y and x are required.
    pixel_size, units, translation
        One value per axis, at level 0. Units are NGFF long names ("micrometer") or None. For c: 1.0, None, 0.0.
    name
        Name of the image.
    channel_names, channel_colors
        One value per channel, or None for defaults; colours are "RRGGBB".
    provenance
        How the image was made; JSON-able.
    chunk, shard
        Size in pixels, along y and x, of a chunk and of a shard (one file). The shard is a multiple of the chunk.
    colour
        Whether c holds the samples of a colour image: grey and alpha, RGB or RGBA. They share a chunk.
    interleaved
        Whether channels that are not colours share a chunk.
    levels
        Number of pyramid levels; None halves y and x until both are at most 256.
    format
        One of `FORMATS`: OME-Zarr 0.5 (Zarr version 3, shards), OME-Zarr 0.4 (Zarr version 2, one file per chunk), or
        a plain Zarr array (version 3, shards, one level).
    codec
        One of `CODECS`, the compression of chunks.
    checksums
        Whether each chunk in a shard has a CRC-32C, by which readers detect damage. Not supported by OME-Zarr 0.4.

    Raises
    ------
    DestinationError
        If OME-Zarr does not support the dtype, the image is too small for that many levels, or the format or codec is
        unknown.
    ValueError
        If the attributes contradict each other.
    TypeError
        If the provenance is not JSON-able.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    pixel_size: tuple[float, ...]
    units: tuple[str | None, ...]
    translation: tuple[float, ...]
    name: str
    channel_names: tuple[str, ...] | None
    channel_colors: tuple[str, ...] | None
    provenance: Mapping[str, Any]
    chunk: int = 512
    shard: int = 2048
    colour: bool = False
    interleaved: bool = False
    levels: int | None = None
    format: str = "0.5"
    codec: str = "zstd"
    checksums: bool = True

    def __post_init__(self) -> None:
        """Validate the attributes."""
        object.__setattr__(self, "dtype", np.dtype(self.dtype).newbyteorder("="))
        if not re.fullmatch("t?c?z?yx", self.axes):
            raise ValueError(f'axes must be letters of "tczyx" in that order with y and x, not {self.axes!r}')
        if {len(self.shape), len(self.pixel_size), len(self.units), len(self.translation)} != {len(self.axes)}:
            raise ValueError("shape, pixel_size, units and translation must have one entry per axis")
        if min(self.shape) < 1:
            raise ValueError(f"an image of shape {self.shape} has no pixels")
        if not all(0 < size < math.inf for size in self.pixel_size) or not all(map(math.isfinite, self.translation)):
            raise ValueError("pixel sizes must be positive and translations finite")
        if self.chunk < 1 or self.shard < 1 or self.shard % self.chunk:
            raise DestinationError(
                f"shards of {self.shard} px do not consist of chunks of {self.chunk} px: make the shard a multiple"
            )
        if self.colour and self.channels not in (2, 3, 4):
            raise ValueError("a colour image has the channels grey and alpha, R, G, B or R, G, B, A")
        for per_channel in (self.channel_names, self.channel_colors):
            if per_channel is not None and len(per_channel) != self.channels:
                raise ValueError(f"{len(per_channel)} channel names or colours for {self.channels} channels")
        if not all(re.fullmatch("[0-9A-Fa-f]{6}", color) for color in self.channel_colors or ()):
            raise ValueError('channel colours must be "RRGGBB"')
        json.dumps(dict(self.provenance), allow_nan=False)  # fail now rather than after hours of writing
        if self.dtype.kind not in "uif" or self.dtype.itemsize > 8:
            raise DestinationError(f"images of type {self.dtype} are not written: use integers or floats up to 64 bits")
        for kind, given, known in (("format", self.format, FORMATS), ("codec", self.codec, CODECS)):
            if given not in known:
                raise DestinationError(f"there is no {kind} {given!r}; choose one of {', '.join(known)}")
        if self.format == "zarr" and self.levels not in (None, 1):
            raise DestinationError(f"a plain Zarr array has one level, not {self.levels}: choose an OME-Zarr format")
        height, width = self.shape[-2:]
        deepest = (max(height, width) - 1).bit_length() + 1
        if self.levels is not None and not 1 <= self.levels <= deepest:
            raise DestinationError(
                f"{height} x {width} pixels cannot make {self.levels} pyramid levels: choose 1 to {deepest}"
            )

    @property
    def channels(self) -> int:
        """Number of channels; 0 without a c axis."""
        return self.shape[self.axes.index("c")] if "c" in self.axes else 0

    @property
    def has_alpha(self) -> bool:
        """True if the last channel is the alpha of the others."""
        return self.colour and self.channels in ALPHA_SAMPLES

    @property
    def uncompressed_bytes(self) -> int:
        """Size of all levels in bytes before compression."""
        return sum(map(math.prod, self.level_shapes())) * self.dtype.itemsize

    def level_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of all levels. Each level halves y and x, rounded up."""
        *others, height, width = self.shape
        count = 1 if self.format == "zarr" else self.levels or ((max(height, width) - 1) // SMALLEST).bit_length() + 1
        return tuple((*others, -(-height // 2**level), -(-width // 2**level)) for level in range(count))

    def chunk_shape(self, level: int = 0) -> tuple[int, ...]:
        """Return the shape of a chunk, which is compressed and read as a whole."""
        *_, height, width = self.level_shapes()[level]
        others = (self.channels if axis == "c" and (self.colour or self.interleaved) else 1 for axis in self.axes[:-2])
        return (*others, min(self.chunk, height), min(self.chunk, width))

    def shard_shape(self, level: int = 0) -> tuple[int, ...]:
        """Return the shape of a shard, which is one file: a multiple of the chunk, no larger than the level needs."""
        shape, chunks = self.level_shapes()[level], self.chunk_shape(level)
        height, width = (
            min(self.shard, -(-size // chunk) * chunk) for size, chunk in zip(shape[-2:], chunks[-2:], strict=True)
        )
        return (*chunks[:-2], height, width)

    def shard_counts(self, level: int = 0) -> tuple[int, ...]:
        """Count the shards along each axis."""
        shape, shard = self.level_shapes()[level], self.shard_shape(level)
        return tuple(-(-size // step) for size, step in zip(shape, shard, strict=True))

    def shards(self, level: int = 0) -> Iterator[Region]:
        """Yield the regions of all shards of a level in raster order."""
        shape, shard = self.level_shapes()[level], self.shard_shape(level)
        for index in itertools.product(*map(range, self.shard_counts(level))):
            yield _shard_region(index, shape, shard)

    def shard_region(self, index: tuple[int, ...], level: int = 0) -> Region:
        """Return the region of a shard by its position among the shards of its level."""
        return _shard_region(index, self.level_shapes()[level], self.shard_shape(level))

    def finer_region(self, index: tuple[int, ...], level: int) -> Region:
        """Return the region of the level before from which a shard is downsampled."""
        region, finer = self.shard_region(index, level), self.level_shapes()[level - 1]
        return (
            *region[:-2],
            *(
                slice(2 * part.start, min(2 * part.stop, size))
                for part, size in zip(region[-2:], finer[-2:], strict=True)
            ),
        )

    def shard_index(self, region: Region, level: int = 0) -> tuple[int, ...]:
        """Return the position of a shard among the shards of its level.

        Raises
        ------
        ValueError
            If the region is not one complete shard.
        """
        shape, shard = self.level_shapes()[level], self.shard_shape(level)
        if len(region) == len(shape):
            starts = [part.indices(size)[0] for part, size in zip(region, shape, strict=True)]
            index = tuple(start // step for start, step in zip(starts, shard, strict=True))
            inside = all(start < size for start, size in zip(starts, shape, strict=True))
            if inside and region == _shard_region(index, shape, shard):
                return index
        raise ValueError(f"{region} is not one whole shard of level {level}")


def _shard_region(index: tuple[int, ...], shape: tuple[int, ...], shard: tuple[int, ...]) -> Region:
    return tuple(
        slice(number * step, min((number + 1) * step, size))
        for number, size, step in zip(index, shape, shard, strict=True)
    )
