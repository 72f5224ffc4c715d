"""Images as the network sees them: planes of one or three channels, read window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.io.image import Pixels
from napari_mgbpv2.io.readers import ArrayLike, ImageSource


@dataclass(frozen=True)
class ChannelPlanes:
    """The planes of one image; each is an image of ``channels`` for the network.

    Every position along z, t and c is a plane. A network of three channels takes colours as they are and grey as
    three equal channels; a network of one channel takes red, green and blue as a plane each, as upscaling with it
    does. Alpha is left out, unless the network has as many channels as the pixel has samples.

    Parameters
    ----------
    path
        Path of the image, for messages.
    axes
        Axes of its pixels, one letter each (y, x, s for samples, and others).
    shape
        Length of each axis.
    scale
        Upscaling factor. The image is cut to multiples of it at the bottom and on the right.
    channels
        Number of channels of the network.
    values
        Map between the image's values and [0, 1].

    Raises
    ------
    ImageError
        The number of samples does not fit the network.
    """

    path: str
    axes: str
    shape: tuple[int, ...]
    scale: int
    channels: int
    values: ValueMap

    def __post_init__(self) -> None:
        samples = self._size("s")
        if self.channels not in (1, 3, samples) or (self.channels == 3 and samples > 4):
            raise ImageError(f"a pixel has {samples} samples, the network takes {self.channels} channels.")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self._size("y") // self.scale * self.scale, self._size("x") // self.scale * self.scale

    @property
    def count(self) -> int:
        """Number of planes."""
        return math.prod(self._leading) * self._alternatives

    def read(self, data: ArrayLike, plane: int, rows: slice, columns: slice) -> Tensor:
        """Read (channels, h, w) float32, 0 black to 1 white, from the pixels ``data`` of this image."""
        position, alternative = divmod(plane, self._alternatives)
        leading = np.unravel_index(position, self._leading) if self._leading else ()
        pixels = read_plane(data, self.axes, leading, rows, columns, self._samples(alternative))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        unit = np.ascontiguousarray(self.values.to_unit(pixels).transpose(2, 0, 1))
        return torch.from_numpy(unit).expand(self.channels, -1, -1)  # a view: grey is not copied per channel

    @property
    def _leading(self) -> tuple[int, ...]:
        return tuple(size for axis, size in zip(self.axes, self.shape, strict=True) if axis not in "yxs")

    @property
    def _colours(self) -> int:
        """Number of samples without alpha."""
        samples = self._size("s")
        return samples - 1 if samples in (2, 4) and self.channels != samples else samples

    @property
    def _alternatives(self) -> int:
        return self._colours if self.channels == 1 else 1

    def _samples(self, alternative: int) -> slice:
        return _at(alternative) if self.channels == 1 else slice(0, self._colours)

    def _size(self, axis: str) -> int:
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


def read_plane(
    data: ArrayLike,
    axes: str,
    position: Sequence[int | np.integer[Any]],
    rows: slice,
    columns: slice,
    samples: slice = slice(None),
) -> Pixels:
    """Read (h, w) or (h, w, samples) of the plane at ``position`` along the axes other than y, x and s."""
    parts, places = {"y": rows, "x": columns, "s": samples}, iter(position)
    window = tuple(parts[axis] if axis in parts else _at(int(next(places))) for axis in axes)
    plane: Pixels = np.asarray(data[window]).transpose(standard_axes(axes)[1])[(0,) * len(position)]
    return plane


def standard_axes(axes: str) -> tuple[str, list[int]]:
    """Return the axes with y, x and s last, and the permutation of the dimensions that puts them there."""
    standard = "".join(axis for axis in axes if axis not in "yxs") + "yx" + "s" * ("s" in axes)
    return standard, [axes.index(axis) for axis in standard]


def _at(position: int) -> slice:
    return slice(position, position + 1)


def source_size(source: ImageSource) -> tuple[int, int]:
    """Return height and width of an image in pixels."""
    height, width = (source.data.shape[source.axes.index(axis)] for axis in "yx")
    return height, width


def error_reason(error: SourceError | ImageError, path: str = "") -> str:
    """Return the message of an error without the path that it begins with."""
    message = str(error)
    return message.removeprefix(f"{path}: ") if path else message
