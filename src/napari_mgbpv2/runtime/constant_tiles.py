"""Results for tiles whose source has one colour throughout, such as the background of a slide.

Tiles with equal sources have equal results, bit for bit, so each is computed once and cached for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache
from torch import Tensor

from napari_mgbpv2.imaging.resampling import ResamplingWeights
from napari_mgbpv2.tiling.grid import CONSTANT_TILE_CACHE_SIZE


class ConstantTileCache:
    """Last results of the networks of an engine for constant tiles. The device's lock guards it."""

    def __init__(self) -> None:
        self._results: LRUCache[Hashable, Tensor] = LRUCache(CONSTANT_TILE_CACHE_SIZE)

    def get_or_compute(
        self,
        network: int,
        source: npt.NDArray[np.float32],
        weights: tuple[ResamplingWeights, ResamplingWeights],
        output_region: tuple[slice, slice],
        compute: Callable[[], Tensor],
    ) -> Tensor:
        """Return the result for a tile, from the cache if its source is constant and the same result is there.

        Parameters
        ----------
        network
            Index of the network in the engine.
        source
            (C, h, w) pixels.
        weights
            Resampling weights of rows and columns. A constant source upscaled by equal weights gives equal images.
        output_region
            Rows and columns of the result.
        compute
            Computes the result, (C, rows, columns).

        Returns
        -------
        Tensor
            The result, (C, rows, columns). The caller must not change it.
        """
        if not is_constant(source):
            return compute()
        ends = tuple((part.start, part.stop) for part in output_region)
        key = (network, source[:, 0, 0].tobytes(), *(each.weights.tobytes() for each in weights), ends)
        if key not in self._results:
            self._results[key] = compute().contiguous()  # A view would retain the whole tile.
        return self._results[key]

    def clear(self) -> None:
        """Remove all results."""
        self._results.clear()


def is_constant(source: npt.NDArray[np.float32]) -> bool:
    """Return whether all pixels of a (C, h, w) image have the same colour."""
    # The first row alone rules out nearly all other images.
    return all(bool((part == source[:, :1, :1]).all()) for part in (source[:, :1], source))
