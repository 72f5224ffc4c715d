"""Noise as a function of position: overlapping tiles see the same values, in any order, on any number of workers.

The image is cut into cells. A cell's values come from a counter-based generator (Philox, of NumPy) whose key is the
seed and the channel and whose counter is the cell's place, so that every cell can be made alone. NumPy promises the
generator's raw words for all its versions; they are made normal here, by the method of Box and Muller.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CELL = 256  # pixels along each side
_WORD = 2**64


def noise_window(
    seed: int, channel: int, first_row: int, first_column: int, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Standard normal noise of a window of one channel.

    Parameters
    ----------
    seed
        Any integer; taken modulo 2^64.
    channel
        Number of the channel, counted over all planes of the image: each has noise of its own.
    first_row, first_column
        Position of the window, in target pixels, not negative.
    height, width
        Size of the window.

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
    # Philox would take a list with large integers for floats, and lose their last bits.
    key = np.array([seed % _WORD, channel % _WORD], np.uint64)
    generator = np.random.Philox(key=key, counter=np.array([0, 0, column, row], np.uint64))
    words = generator.random_raw(CELL * CELL // 2)
    # two uniform numbers of 24 bits, all that float32 holds, from the two halves of a word; never 0 and never 1
    first, second = ((half.astype(np.float32) + np.float32(0.5)) * np.float32(2**-24) for half in _halves(words))
    radius = np.sqrt(-2 * np.log(np.minimum(first, np.float32(1 - 2**-24))))
    angle = np.float32(2 * np.pi) * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).reshape(CELL, CELL)


def _halves(words: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    return words >> np.uint64(40), (words & np.uint64(0xFFFFFFFF)) >> np.uint64(8)
