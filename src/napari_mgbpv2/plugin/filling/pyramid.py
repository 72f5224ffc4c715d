"""The pyramid of an upscaled layer: the network at the top, everything coarser from the source.

napari reads the coarsest level whenever it looks at a layer. A pyramid that coarsened the network's output would run
all of it for a thumbnail; this one runs a tile when somebody has zoomed in on it, and never for anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mgbpv2.plugin.filling.coarse_level import CoarseLevel, ThumbnailLevel
from napari_mgbpv2.plugin.filling.comparable import Comparable
from napari_mgbpv2.plugin.filling.feed import Feed
from napari_mgbpv2.plugin.filling.upscaled_level import UpscaledLevel, upscaled_level
from napari_mgbpv2.plugin.layer_image import LayerImage
from napari_mgbpv2.upscaling import UpscalePlan

SOURCE_BYTES = 256 * 2**20  # of bicubic blocks, and of coarser ones of a source that is not in memory
LARGEST_STEP = 4  # between two levels finer than the source
COARSEST_SIDE = 1024  # no coarser level is made of an image this small
THUMBNAIL_SIDE = 64


@dataclass(frozen=True)
class Pyramid:
    """Levels that fill themselves.

    Attributes
    ----------
    levels
        Arrays for napari, the finest first: that one can be compared with bicubic upscaling.
    network
        Feed of the network's tiles.
    source
        Feed of blocks of the source.
    """

    levels: tuple[Any, ...]
    network: Feed
    source: Feed

    @property
    def finest(self) -> UpscaledLevel:
        """The level that the network fills."""
        level: UpscaledLevel = self.levels[0].result
        return level

    @property
    def is_idle(self) -> bool:
        """Whether all that was asked for is there."""
        return self.network.is_idle and self.source.is_idle

    def close(self, timeout: float | None = 0.0) -> None:
        """Make nothing more, and let go of what is kept."""
        self.network.close(timeout)
        self.source.close(timeout)


def fill(
    image: LayerImage,
    plan: UpscalePlan,
    *,
    cache_bytes: int,
    changed: Callable[[], None],
    failed: Callable[[Exception], None],
) -> Pyramid:
    """Make the pyramid of an image; reads no pixel of it and runs no tile.

    Parameters
    ----------
    image
        The source.
    plan
        How it is upscaled.
    cache_bytes
        Size of the cache of tiles.
    changed
        Called by a feed's thread when something can be shown that could not before.
    failed
        Called by a feed's thread with what has gone wrong; that feed is closed then.
    """
    network, source = network_feed(cache_bytes, changed, failed), Feed(SOURCE_BYTES, changed, failed)
    finest = upscaled_level(plan, plan.scale, network, source)
    bicubic = [upscaled_level(plan, scale, None, source) for scale in (plan.scale, *_scales_between(plan.scale))]
    levels = (Comparable(finest, bicubic[0], plan.layout.x), *bicubic[1:], *_source_levels(image, plan, source))
    return Pyramid(levels, network, source)


def network_feed(limit: int, changed: Callable[[], None], failed: Callable[[Exception], None]) -> Feed:
    """Make the feed of a network's tiles: closed, it gives the memory of the device back. Parameters as `Feed` has."""
    from napari_mgbpv2.runtime import release_device_memory

    return Feed(limit, changed, failed, release_device_memory)


def exact(array: Any) -> Any:
    """Return what gives the complete result where an array shows what is there at the moment; any other as it is."""
    shown = array.result if isinstance(array, Comparable) else array
    return shown.plan.tiled_image(retain_consumed=False) if isinstance(shown, UpscaledLevel) else shown


def _scales_between(scale: int) -> list[int]:
    """Scales of bicubic levels, so that no step to the next level is larger than `LARGEST_STEP`."""
    scales = []
    while scale > LARGEST_STEP and scale % LARGEST_STEP == 0:
        scale //= LARGEST_STEP
        scales.append(scale)
    return scales


def _source_levels(image: LayerImage, plan: UpscalePlan, feed: Feed) -> list[Any]:
    if image.coarser:
        return [image.data if image.shown is None else image.shown, *image.coarser]
    y, x = image.axes.index("y"), image.axes.index("x")
    halvings = range(max(0, math.ceil(math.log2(max(image.data.shape[y], image.data.shape[x]) / COARSEST_SIDE))) + 1)
    if isinstance(image.data, np.ndarray):
        steps = ([2**times if axis in "yx" else 1 for axis in image.axes] for times in halvings)
        return [image.data[tuple(slice(None, None, step) for step in each)] for each in steps]
    levels: list[Any] = [CoarseLevel(plan.compute_tile.source, image.axes, times, feed) for times in halvings]
    if len(image.axes.replace("s", "")) == 2:
        step = math.ceil(max(levels[-1].shape[axis] for axis in (y, x)) / THUMBNAIL_SIDE)
        levels.append(ThumbnailLevel(levels[-1], image.axes, step))
    return levels
