"""Where an upscaled layer lies and how it looks: exactly on its source, and like it.

A pixel's index is the position of its centre, so the corner of an image is at -1/2 and an upscaled pixel i_f lies at
(i_f + 1/2) / f - 1/2 of the source. Hence scale' = scale / f, and the translation moves by M ((1/f - 1) / 2), where
M is the linear part (rotation, shear, scale) of the layer's way from pixels to space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def upscaled_place(layer: Any, factors: Sequence[float]) -> dict[str, Any]:
    """Return the spatial arguments of ``add_image`` for a layer that is upscaled.

    Parameters
    ----------
    layer
        A napari layer.
    factors
        How many pixels of the result a pixel of the layer becomes, along each axis; 1 where it is not upscaled.

    Returns
    -------
    dict
        ``scale``, ``translate``, ``rotate``, ``shear``, ``affine``, ``units`` and ``axis_labels``.
    """
    factor = np.asarray(factors, dtype=np.float64)
    shift = linear_part(layer) @ ((1 / factor - 1) / 2)
    return {
        "scale": np.asarray(layer.scale) / factor,
        "translate": np.asarray(layer.translate) + shift,
        "rotate": np.asarray(layer.rotate),
        "shear": np.asarray(layer.shear),
        "affine": np.asarray(layer.affine.affine_matrix),
        "units": tuple(layer.units),
        "axis_labels": tuple(layer.axis_labels),
    }


def linear_part(layer: Any) -> npt.NDArray[np.float64]:
    """Return the matrix that takes pixel steps to steps in space, without the extra affine: rotation, shear, scale."""
    from napari.utils.transforms.transform_utils import compose_linear_matrix

    matrix: npt.NDArray[np.float64] = compose_linear_matrix(layer.rotate, layer.scale, layer.shear)
    return matrix


def is_upright(layer: Any) -> bool:
    """Whether scale and translation alone say where a layer lies: what OME-Zarr 0.5 can hold."""
    scale = np.diag(np.asarray(layer.scale, dtype=np.float64))
    affine = np.asarray(layer.affine.affine_matrix)
    return np.allclose(linear_part(layer), scale) and np.allclose(affine, np.eye(len(affine)))


def same_looks(layer: Any) -> dict[str, Any]:
    """Return the arguments of ``add_image`` that make another layer look like this one."""
    looks = {"rgb": bool(layer.rgb), "blending": layer.blending, "opacity": layer.opacity, "gamma": layer.gamma}
    if not layer.rgb:
        looks |= {"colormap": layer.colormap, "contrast_limits": tuple(layer.contrast_limits)}
    return looks
