"""Noise as a function of position: overlapping tiles get the same values, in any order, on any number of workers.

The image is divided into cells. The values of a cell come from a counter-based generator, NumPy's Philox. Its key is
the seed and the channel, and its counter is the position of the cell, so each cell can be generated independently.
NumPy guarantees the generator's raw words for all its versions; the Box-Muller method turns them into normal values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CELL = 256  # pixels along each side
_WORD = 2**64


def noise_window(
    seed: int, channel: int, first_row: int, first_column: int, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Return standard normal noise for a window of one channel.

    Parameters
    ----------
    seed
        Any integer, taken modulo 2^64.
    channel
        Index of the channel among those of all planes of the image. Each channel has its own noise.
    first_row, first_column
        Position of the window, in target pixels, 0 or more.
    height, width
        Size of the window, in target pixels.

    Returns
    -------
    ndarray
        (height, width), float32.
    """
    window = np.empty((height, width), np.float32)
    for cell_row in range(first_row // CELL, -(-(first_row + height) // CELL)):
        for cell_column in range(first_column // CELL, -(-(first_column + width) // CELL)):
            top, left = cell_row * CELL - first_row, cell_column * CELL - first_column
            rows = slice(max(0, top), min(height, top + CELL))
            columns = slice(max(0, left), min(width, left + CELL))
            cell = _cell(seed, channel, cell_row, cell_column)
            window[rows, columns] = cell[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return window


def _cell(seed: int, channel: int, row: int, column: int) -> npt.NDArray[np.float32]:
    # Philox converts a list with large integers to floats, which lose their last bits.
    key = np.array([seed % _WORD, channel % _WORD], np.uint64)
    generator = np.random.Philox(key=key, counter=np.array([0, 0, column, row], np.uint64))
    words = generator.random_raw(CELL * CELL // 2)
    # Two uniform numbers of 24 bits, the precision of float32, from the two halves of a word; never 0 and never 1.
    first, second = ((half.astype(np.float32) + np.float32(0.5)) * np.float32(2**-24) for half in _halves(words))
    radius = np.sqrt(-2 * np.log(np.minimum(first, np.float32(1 - 2**-24))))
    angle = np.float32(2 * np.pi) * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).reshape(CELL, CELL)


def _halves(words: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    return words >> np.uint64(40), (words & np.uint64(0xFFFFFFFF)) >> np.uint64(8)
