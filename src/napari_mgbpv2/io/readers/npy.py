"""NumPy's own files, mapped."""

from __future__ import annotations

import numpy as np

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.image import ImageSource, axes_or, bare_source, guess_axes, only_image
from napari_mgbpv2.io.memory_mapped import MappedArray


def open_npy(path: str, series: int, level: int, said_axes: str | None) -> ImageSource:
    """Open a .npy file; its axes are told by its dimensions, or where these do not tell, as they are said.

    Raises
    ------
    SourceError
        It is cut short, its header is damaged, or it holds something else than numbers.
    """
    only_image(path, "NumPy file", series, level)
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header fails as any damaged Python expression may
        raise SourceError(
            f"{path}: cannot be read as a NumPy array ({error}); it is damaged, cut short, or holds Python objects: "
            "save plain numbers with numpy.save."
        ) from error
    order = "C" if mapped.flags.c_contiguous else "F"
    axes = axes_or(said_axes, mapped.shape, lambda: guess_axes(path, mapped.shape))
    data = MappedArray(path, mapped.shape, mapped.dtype, mapped.offset, order)
    return bare_source(data, axes, path, "NumPy array")
