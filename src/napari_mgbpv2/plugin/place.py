"""Where an upscaled layer lies and how it looks: exactly on its source, and like it.

A pixel's index is the position of its centre, so the corner of an image is at -1/2 and an upscaled pixel i_f lies at
(i_f + 1/2) / f - 1/2 of the source. Hence scale' = scale / f, and the translation moves by M ((1/f - 1) / 2), where
M is the linear part (rotation, shear, scale) of the layer's way from pixels to space.

An axis may run backwards: by a negative scale, which is how napari users flip one, or by a half turn or an affine. No
file format and few other programs know of that, so the pixels are reversed instead, and the axis runs forwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Placement:
    """Pixel size and position of a layer: what a file can hold of its transform.

    Attributes
    ----------
    scale
        Signed size of a pixel along each axis, in the layer's units; negative where the axis runs backwards.
    translate
        Position of the centre of the first pixel along each axis.
    is_complete
        Whether that is the whole transform. Otherwise rotation, shear or affine are left out.
    """

    scale: tuple[float, ...]
    translate: tuple[float, ...]
    is_complete: bool

    @property
    def backwards(self) -> tuple[int, ...]:
        """Numbers of the axes that run backwards."""
        return tuple(axis for axis, size in enumerate(self.scale) if size < 0)

    def forwards(self, shape: Sequence[int]) -> Placement:
        """Return the placement of the same image after the pixels of its backwards axes are reversed.

        Parameters
        ----------
        shape
            Number of pixels along each axis.
        """
        ends = zip(self.scale, self.translate, shape, strict=False)
        translate = tuple(start + step * (size - 1) if step < 0 else start for step, start, size in ends)
        return Placement(tuple(map(abs, self.scale)), translate, self.is_complete)


def placement(*, scale: Sequence[float], translate: Sequence[float], rotate: Any, shear: Any, affine: Any) -> Placement:
    """Return what scale and translation alone can say of a transform.

    Parameters
    ----------
    scale, translate, rotate, shear
        Of a napari layer.
    affine
        Its affine as a matrix of one row and column more than the layer has axes.
    """
    from napari.utils.transforms.transform_utils import compose_linear_matrix

    whole = np.asarray(affine, dtype=np.float64)
    linear = whole[:-1, :-1] @ compose_linear_matrix(rotate, scale, shear)
    steps = np.diag(linear)
    if not np.allclose(linear, np.diag(steps), rtol=0, atol=1e-9 * np.abs(linear).max()) or not steps.all():
        return Placement(tuple(map(float, scale)), tuple(map(float, translate)), is_complete=False)
    start = whole[:-1, :-1] @ np.asarray(translate, dtype=np.float64) + whole[:-1, -1]
    return Placement(tuple(steps.tolist()), tuple(start.tolist()), is_complete=True)


def placement_of(layer: Any) -> Placement:
    """Return what scale and translation alone can say of a layer's transform."""
    return placement(
        scale=layer.scale,
        translate=layer.translate,
        rotate=layer.rotate,
        shear=layer.shear,
        affine=layer.affine.affine_matrix,
    )


def upscaled_place(
    layer: Any, factors: Sequence[float], reversed_sizes: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """Return the spatial arguments of ``add_image`` for a layer that is upscaled.

    Parameters
    ----------
    layer
        A napari layer.
    factors
        How many pixels of the result a pixel of the layer becomes, along each axis; 1 where it is not upscaled.
    reversed_sizes
        The axes along which the result has the pixels of the layer in the reverse order, each with the number of
        the layer's pixels.

    Returns
    -------
    dict
        ``scale``, ``translate``, ``rotate``, ``shear``, ``affine``, ``units`` and ``axis_labels``.
    """
    factor = np.asarray(factors, dtype=np.float64)
    first = (1 / factor - 1) / 2
    signs = np.ones_like(factor)
    for axis, size in (reversed_sizes or {}).items():
        first[axis], signs[axis] = size - 1 - first[axis], -1.0
    shift = linear_part(layer) @ first
    return {
        "scale": np.asarray(layer.scale) * signs / factor,
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


def same_looks(layer: Any) -> dict[str, Any]:
    """Return the arguments of ``add_image`` that make another layer look like this one."""
    looks = {"rgb": bool(layer.rgb), "blending": layer.blending, "opacity": layer.opacity, "gamma": layer.gamma}
    if not layer.rgb:
        looks |= {"colormap": layer.colormap, "contrast_limits": tuple(layer.contrast_limits)}
    return looks
