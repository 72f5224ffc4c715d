"""Pixels that are stored lying on their side or mirrored, as they are to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile

from napari_mgbpv2.io.image import FileArray, Pixels, ReadingMemory, Reopen, Window

# TIFF's and EXIF's orientation -> swap rows and columns, then flip rows, then flip columns.
TURNS = {
    2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


def read_orientation(page: tifffile.TiffPage) -> tuple[bool, bool, bool]:
    """Return what turns a page upright: swap rows and columns, then flip rows, then flip columns."""
    value = page.tags.valueof(274)
    return TURNS.get(value, (False, False, False)) if isinstance(value, int) else (False, False, False)


def turn_upright(pixels: FileArray, axes: str, page: tifffile.TiffPage, reopen: Reopen) -> FileArray:
    """Return pixels as they are to be seen.

    Parameters
    ----------
    pixels
        As they are stored.
    axes
        Their axes as tifffile names them, "Y" and "X" among them.
    page
        Says how they are to be turned.
    reopen
        As `FileArray` has it, of what is returned.
    """
    turn = read_orientation(page)
    if not any(turn) or not {"Y", "X"} <= set(axes):
        return pixels
    return TurnedArray(pixels, axes.index("Y"), axes.index("X"), turn, reopen)


class TurnedArray(FileArray):
    """Pixels that are turned or mirrored when they are read, window by window.

    Parameters
    ----------
    pixels
        As they are stored.
    y, x
        The axes that are turned.
    turn
        Whether rows and columns are swapped, then rows flipped, then columns.
    reopen
        As `FileArray` has it.
    """

    def __init__(self, pixels: FileArray, y: int, x: int, turn: tuple[bool, bool, bool], reopen: Reopen) -> None:
        self._pixels, self._y, self._x = pixels, y, x
        self._swap, self._flip_y, self._flip_x = turn
        super().__init__(pixels.path, self._turned(pixels.shape), pixels.dtype, reopen)
        self.nodata = pixels.nodata

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """As in the file, turned."""
        return self._turned(self._pixels.chunk_shape)

    @property
    def decoding_bytes(self) -> int:
        """As in the file."""
        return self._pixels.decoding_bytes

    def reading_memory(self, window: Sequence[int], readers: int) -> ReadingMemory:
        """As in the file."""
        return self._pixels.reading_memory(self._turned(window), readers)

    def identity(self) -> dict[str, Any]:
        """Return the identity of the stored pixels."""
        return self._pixels.identity()

    def _turned(self, sizes: Sequence[int]) -> tuple[int, ...]:
        turned = list(sizes)
        if self._swap:
            turned[self._y], turned[self._x] = sizes[self._x], sizes[self._y]
        return tuple(turned)

    def _read(self, window: Window) -> Pixels:
        stored = list(window)
        for axis, flipped in ((self._y, self._flip_y), (self._x, self._flip_x)):
            if flipped:
                part, size = window[axis], self.shape[axis]
                stored[axis] = slice(size - part.stop, size - part.start)
        if self._swap:
            stored[self._y], stored[self._x] = stored[self._x], stored[self._y]
        pixels = self._pixels[tuple(stored)]
        if self._swap:
            pixels = pixels.swapaxes(self._y, self._x)
        flipped_axes = tuple(axis for axis, flip in ((self._y, self._flip_y), (self._x, self._flip_x)) if flip)
        return np.ascontiguousarray(np.flip(pixels, flipped_axes) if flipped_axes else pixels)


class FlippedArray(FileArray):
    """Pixels that are read in the reverse order along some axes, window by window.

    Parameters
    ----------
    pixels
        As they are stored.
    flipped
        Numbers of the axes to reverse.
    reopen
        The call that builds the same array again.
    """

    def __init__(self, pixels: FileArray, flipped: tuple[int, ...], reopen: Reopen) -> None:
        self._pixels, self._flipped = pixels, flipped
        super().__init__(pixels.path, pixels.shape, pixels.dtype, reopen)
        self.nodata = pixels.nodata

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Pixels along each axis of what is decoded at a time."""
        return self._pixels.chunk_shape

    def identity(self) -> dict[str, Any]:
        """Return the identity of the stored pixels."""
        return self._pixels.identity()

    def _read(self, window: Window) -> Pixels:
        stored = list(window)
        for axis in self._flipped:
            part, size = window[axis], self.shape[axis]
            stored[axis] = slice(size - part.stop, size - part.start)
        return np.ascontiguousarray(np.flip(self._pixels[tuple(stored)], self._flipped))
