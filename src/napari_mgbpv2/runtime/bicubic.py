"""Bicubic upscaling without a network, for values that a network is not given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_mgbpv2.imaging.resampling import ResamplingWeights, upscale_window
from napari_mgbpv2.runtime.device import run_on_engine_thread
from napari_mgbpv2.tiling.grid import Span


def enlarge(
    pixels: npt.NDArray[Any],
    window: tuple[slice, slice],
    core: tuple[Span, Span],
    shape: tuple[int, int],
    scale: int,
) -> npt.NDArray[Any]:
    """Upscale a part of an image bicubically on the CPU. A pixel has the same bits in every window.

    Parameters
    ----------
    pixels
        (C, h, w) source pixels of the window, float32 or float64.
    window
        Source rows and columns of ``pixels``. It contains all that the core reads.
    core
        Rows and columns to return, in target pixels.
    shape
        Height and width of the whole source, in source pixels.
    scale
        Upscaling factor.

    Returns
    -------
    ndarray
        (C, rows, columns) of the core, in the dtype of ``pixels``.
    """
    rows, columns = (
        ResamplingWeights.of(np.arange(*span), scale, size) for span, size in zip(core, shape, strict=True)
    )
    inner = (
        slice(weights.window.start - part.start, weights.window.stop - part.start)
        for weights, part in zip((rows, columns), window, strict=True)
    )
    image = np.ascontiguousarray(pixels[(slice(None), *inner)])

    def to_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
        is_widened = array.dtype == np.float32 and image.dtype == np.float64
        return torch.from_numpy(array.astype(np.float64) if is_widened else array)

    upscaled = run_on_engine_thread(lambda: upscale_window(to_tensor(image), rows, columns, to_tensor))
    result: npt.NDArray[Any] = upscaled.numpy()
    return result
