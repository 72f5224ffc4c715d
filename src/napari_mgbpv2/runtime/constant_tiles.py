"""Tiles whose source has one colour throughout: the background of a slide, what lies outside of a scan.

All of them that are alike have the same result, bit for bit: it is computed once and kept for the next.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from napari_mgbpv2.imaging.resampling import ResamplingWeights
from napari_mgbpv2.tiling.grid import CONSTANT_TILE_CACHE_SIZE


class ConstantTileCache:
    """Keeps what the networks of an engine have made of tiles of one colour."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get_or_compute(
        self,
        network: int,
        source: npt.NDArray[np.float32],
        weights: tuple[ResamplingWeights, ResamplingWeights],
        output_region: tuple[slice, slice],
        compute: Callable[[], Tensor],
    ) -> Tensor:
        """Give the result for a tile; if its source is even, the one before may have had the same.

        Parameters
        ----------
        network
            Its number.
        source
            (C, h, w) pixels.
        weights
            Resampling weights of rows and columns. A constant source upscaled by equal weights gives equal images.
        output_region
            Rows and columns of the result.
        compute
            Computes it.

        Returns
        -------
        Tensor
            The result, not to be changed.
        """
        if not is_constant(source):
            return compute()
        ends = tuple((part.start, part.stop) for part in output_region)
        key = (network, source[:, 0, 0].tobytes(), *(each.weights.tobytes() for each in weights), ends)
        if key not in self._kept:
            self._kept[key] = compute().contiguous()  # a part of a tile would keep the whole of it
        self._kept.move_to_end(key)
        while len(self._kept) > CONSTANT_TILE_CACHE_SIZE:
            self._kept.popitem(last=False)
        return self._kept[key]

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()


def is_constant(source: npt.NDArray[np.float32]) -> bool:
    """Tell whether all pixels of a (C, h, w) image are the same."""
    # a row alone tells of nearly all others that they are not
    return all(bool((part == source[:, :1, :1]).all()) for part in (source[:, :1], source))
