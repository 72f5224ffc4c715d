"""Bicubic enlargement alone, of what a network is not given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_mgbpv2.imaging.resampling import ResamplingWeights, upscale_window
from napari_mgbpv2.runtime.thread import run_on_engine_thread
from napari_mgbpv2.tiling.grid import Span


def enlarge(
    pixels: npt.NDArray[Any],
    window: tuple[slice, slice],
    core: tuple[Span, Span],
    shape: tuple[int, int],
    scale: int,
) -> npt.NDArray[Any]:
    """Enlarge a part of an image bicubically, on the CPU; a pixel is the same, bit for bit, in every window.

    Parameters
    ----------
    pixels
        (C, h, w) source pixels of the window, float32 or float64.
    window
        Rows and columns of the source that they are; all that the core reads.
    core
        Rows and columns to give, in target pixels.
    shape
        Height and width of the whole source.
    scale
        Upscaling factor.

    Returns
    -------
    ndarray
        (C, rows, columns) of the core, in the type of the pixels.
    """
    rows, columns = (
        ResamplingWeights.of(np.arange(*span), scale, size) for span, size in zip(core, shape, strict=True)
    )
    inner = (
        slice(weights.window.start - part.start, weights.window.stop - part.start)
        for weights, part in zip((rows, columns), window, strict=True)
    )
    image = np.ascontiguousarray(pixels[(slice(None), *inner)])

    def to_device(array: npt.NDArray[Any]) -> torch.Tensor:
        wide = array.dtype == np.float32 and image.dtype == np.float64
        return torch.from_numpy(array.astype(np.float64) if wide else array)

    enlarged: npt.NDArray[Any] = run_on_engine_thread(
        lambda: upscale_window(to_device(image), rows, columns, to_device)
    ).numpy()
    return enlarged
