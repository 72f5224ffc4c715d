"""What of a napari image layer is upscaled: its pixels at full resolution, the meaning of its axes, its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.axes import AXIS_NAMES, AXIS_ORDER, check_axes, guess_axes

_LETTERS = frozenset(AXIS_ORDER)


@dataclass(frozen=True)
class LayerImage:
    """The image of a layer.

    Attributes
    ----------
    data
        Its array at full resolution.
    coarser
        Arrays of its lower resolutions, where it has any.
    axes
        One letter an axis, as `upscale` takes them.
    value_range
        Values that the network takes for black and white; None for those of the data type.
    name
        Of the layer.
    shown
        What is to be looked at in the place of ``data``, where that would take long; None where it is the same.
    reversed
        Axes along which the arrays have the pixels of the layer in the reverse order.
    origin
        The layer's own array at full resolution, by which it is known again.
    is_range_given
        Whether somebody has set the ends of the contrast slider, which napari takes from one view otherwise.
    """

    data: Any
    coarser: tuple[Any, ...]
    axes: str
    value_range: tuple[float, float] | None
    name: str
    shown: Any = None
    reversed: tuple[int, ...] = ()
    origin: Any = None
    is_range_given: bool = False

    @property
    def reversed_sizes(self) -> dict[int, int]:
        """Number of pixels along each reversed axis."""
        return {axis: int(self.data.shape[axis]) for axis in self.reversed}

    def reverse(self, axes: Sequence[int]) -> LayerImage:
        """Return the image with its pixels in the reverse order along some axes; reads no pixel."""
        from napari_mgbpv2.plugin.reversing import reversed_along

        return replace(
            self,
            data=reversed_along(self.data, axes),
            coarser=tuple(reversed_along(level, axes) for level in self.coarser),
            shown=None if self.shown is None else reversed_along(self.shown, axes),
            reversed=tuple(axes),
        )

    def with_axes(self, axes: str | None) -> LayerImage:
        """Return the image with the axes that the user names; None leaves them as they are.

        Parameters
        ----------
        axes
            One letter per axis; that of the colour samples, "s", may be left out.

        Raises
        ------
        ImageError
            They do not fit the image.
        """
        if not axes:
            return self
        shape = tuple(int(size) for size in self.data.shape)
        if "s" in self.axes and len(axes) == len(shape) - 1:
            axes = f"{axes}s"
        try:
            return replace(self, axes=check_axes(axes, shape))
        except ImageError as error:
            raise ImageError(f"{self.name}: {error}") from error

    def factors(self, scale: int) -> tuple[int, ...]:
        """Return how much larger the result is along each axis of the layer, which has none for colour samples."""
        return tuple(scale if axis in "yx" else 1 for axis in self.axes if axis != "s")


def read_layer(layer: Any) -> LayerImage:
    """Look at an image layer; reads no pixel.

    Raises
    ------
    ImageError
        It has axes that cannot be named, or holds no numbers.
    """
    from napari_mgbpv2.plugin.filling import exact

    if np.dtype(layer.dtype).kind == "b":
        raise ImageError(
            f"{layer.name}: a mask of true and false is no image to upscale; convert it to numbers first: "
            'layer.data.astype("uint8").'
        )
    levels = tuple(layer.data) if layer.multiscale else (layer.data,)
    shown, *coarser = (_unwrapped(level) for level in levels)
    data = exact(shown)
    return LayerImage(
        data=data,
        coarser=tuple(coarser),
        axes=name_axes(levels[0], layer.axis_labels, rgb=bool(layer.rgb)),
        value_range=_value_range(layer),
        name=layer.name,
        shown=None if data is shown else shown,
        origin=levels[0],
    )


def _unwrapped(array: Any) -> Any:
    """Return the array within an xarray, any other as it is."""
    return array.data if hasattr(array, "dims") and hasattr(array, "coords") else array


def name_axes(data: Any, labels: Sequence[str], *, rgb: bool) -> str:
    """Name the axes as a layer's labels do, else as an xarray's dimensions, else by their number.

    Raises
    ------
    ImageError
        There are too few or too many to be named.
    """
    dims = [str(name) for name in getattr(data, "dims", None) or ()]
    for names in (labels, dims[: len(labels)]):
        letters = [AXIS_NAMES.get(name.lower(), name.lower()) for name in names]
        if len(set(letters)) == len(letters) == len(labels) and {"y", "x"} <= set(letters) <= _LETTERS:
            return "".join(letters) + "s" * rgb
    spatial = tuple(data.shape)[: len(labels)]
    # a last axis of 3 or 4 would be guessed to hold colours, and the layer knows that it does not
    return guess_axes((*spatial[:-1], max(spatial[-1], 5))) + "s" * rgb


def _value_range(layer: Any) -> tuple[float, float] | None:
    """Black and white are the type's for 8 bits and colours, else the ends of the layer's contrast slider."""
    dtype = np.dtype(layer.dtype)
    if layer.rgb or dtype.kind == "b" or dtype.itemsize == 1:
        return None
    low, high = (float(end) for end in layer.contrast_limits_range)
    if dtype.kind == "f" and low >= 0 and high <= 1:
        return None
    return (low, high) if np.isfinite([low, high]).all() and low < high else None
