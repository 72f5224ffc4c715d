"""The levels of a map: computed from a tiled image in small blocks, so that something can soon be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.plugin.filling.coarse_level import CoarseLevel, ThumbnailLevel
from napari_mgbpv2.plugin.filling.feed import Feed
from napari_mgbpv2.plugin.filling.pyramid import COARSEST_SIDE, THUMBNAIL_SIDE

if TYPE_CHECKING:
    from napari_mgbpv2.upscaling.lazy import TiledImage

Pixels = npt.NDArray[Any]

USUAL_SHARE = 99.5  # percentile of a block's values that is taken for its largest: single pixels would darken the rest


class GreyMap:
    """A map whose colour samples are averaged, read window by window.

    Parameters
    ----------
    image
        The map.
    """

    def __init__(self, image: TiledImage) -> None:
        self._image, self._samples = image, image.layout.samples
        self.dtype = image.dtype
        self.shape = tuple(size for axis, size in enumerate(image.shape) if axis != self._samples)

    def __getitem__(self, window: Sequence[slice]) -> Pixels:
        """Compute the pixels of one slice an axis."""
        if self._samples is None:
            return self._image[tuple(window)]
        whole = [*window[: self._samples], slice(None), *window[self._samples :]]
        mean: Pixels = self._image[tuple(whole)].mean(axis=self._samples)
        return mean


class MapLevel(CoarseLevel):
    """A map at 1 / 2^halvings of its resolution.

    Parameters
    ----------
    source, axes, halvings, feed
        As `CoarseLevel` has them.
    side
        Pixels of the map along y and x that are computed for a block.

    Attributes
    ----------
    largest
        The largest usual value that has been computed.
    """

    def __init__(self, source: GreyMap, axes: str, halvings: int, feed: Feed, side: int) -> None:
        super().__init__(source, axes, halvings, feed)
        self._block = max(16, side // self._step)
        self.largest = 0.0

    def _make(self, part: Any) -> Pixels:
        pixels = super()._make(part)
        finite = np.abs(pixels[np.isfinite(pixels)])
        if finite.size:
            self.largest = max(self.largest, float(np.percentile(finite, USUAL_SHARE)))
        return pixels


def map_levels(image: TiledImage, axes: str, feed: Feed, side: int) -> list[Any]:
    """Make the levels of a map for napari, the finest first; computes nothing.

    Parameters
    ----------
    image
        The map.
    axes
        Letters of its axes without that of the samples.
    feed
        Makes the blocks.
    side
        As `MapLevel` has it.
    """
    source = GreyMap(image)
    largest = max(size for axis, size in zip(axes, source.shape, strict=True) if axis in "yx")
    halvings = max(0, math.ceil(math.log2(largest / COARSEST_SIDE)))
    levels: list[Any] = [MapLevel(source, axes, times, feed, side) for times in range(halvings + 1)]
    # napari reads the coarsest level of a new layer at once: this one has nothing to compute
    return [*levels, ThumbnailLevel(levels[-1], axes, math.ceil(largest / 2**halvings / THUMBNAIL_SIDE))]
