"""What the widget "Inspect" computes: the pixel that was clicked, its filter, and how a filter is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.plugin.layer_image import LayerImage
from napari_mgbpv2.plugin.place import linear_part, upscaled_place
from napari_mgbpv2.upscaling import UpscaleOptions, UpscalePlan, plan_upscale

if TYPE_CHECKING:
    from napari_mgbpv2.inspection import DeepFilter
    from napari_mgbpv2.upscaling.lazy import TiledImage

BLOCK_SIDE = 512  # target pixels along y and x of what is computed at a time of a map
NO_PIXEL = "There is no pixel of the image there; click inside it."
EXPECTED_SHARE = 0.05  # of the range of values: what a map is expected to reach before anything has been computed


class Kind(Enum):
    """Which filter of a pixel."""

    COLUMN = "where a pixel of the image goes"
    TARGET_COLUMN = "where a pixel of the bicubic image goes"
    ROW = "what a pixel of the result comes from"


@dataclass(frozen=True)
class Inspection:
    """What is looked at, and how it is upscaled.

    Attributes
    ----------
    image
        Of the layer.
    choices
        Model, scale, noise, ...
    """

    image: LayerImage
    choices: UpscaleOptions

    def holds(self, point: Sequence[float]) -> bool:
        """Whether there is a pixel at a point, in pixels of the layer, whose centres are whole numbers."""
        sizes = [size for axis, size in zip(self.image.axes, self.image.data.shape, strict=True) if axis != "s"]
        return all(-0.5 <= at < size - 0.5 for at, size in zip(point, sizes, strict=True))

    def plan(self) -> UpscalePlan:
        """Plan the upscaling; reads no pixel.

        Raises
        ------
        MGBPv2Error
            It cannot be done so.
        """
        options = self.choices.with_image_defaults(self.image.axes, self.image.value_range)
        return plan_upscale(self.image.data, options)


@dataclass(frozen=True)
class Found:
    """The filter of a pixel.

    Attributes
    ----------
    filter
        The filter.
    kind
        Which one.
    axes
        Letter of every axis of the layer, which has none for colour samples.
    """

    filter: DeepFilter
    kind: Kind
    axes: str

    @property
    def pixels(self) -> npt.NDArray[np.float32]:
        """The filter as a grey image with the axes of the layer: of a grey pixel, and in a grey result."""
        samples = self.filter.filter
        grey = samples.sum(axis=2) if self.kind is Kind.ROW else samples.mean(axis=2)
        if self.axes.index("y") > self.axes.index("x"):
            grey = grey.T
        others = tuple(axis for axis, letter in enumerate(self.axes) if letter not in "yx")
        pixels: npt.NDArray[np.float32] = np.expand_dims(grey, others).astype(np.float32)
        return pixels

    @property
    def limit(self) -> float:
        """The largest absolute value of the image; 1 if all is 0."""
        return float(np.abs(self.pixels).max()) or 1.0

    def place(self, layer: Any) -> dict[str, Any]:
        """Return the spatial arguments of ``add_image`` that put the image where it belongs on its layer."""
        factors = axis_factors(self.axes, self.filter.factor)
        rows_and_columns = dict(zip("yx", self.filter.offset, strict=True))
        position = dict(zip(self.axes, self.filter.position, strict=True))
        first = np.array([rows_and_columns.get(axis, position[axis]) for axis in self.axes], dtype=np.float64)
        place = upscaled_place(layer, factors)
        place["translate"] = place["translate"] + linear_part(layer) @ (first / factors)
        return place

    def __str__(self) -> str:
        """Say its size and strength."""
        found = self.filter
        position = dict(zip(self.axes, found.position, strict=True))
        height, width = found.size
        of = "image" if found.factor == 1 else "result"
        residual = float(np.abs(found.residual).max())
        value = float(np.mean(found.output[tuple(size // 2 for size in found.output.shape[:2])]))
        return (
            f"{self.kind.value}: ({position['y']}, {position['x']})\n"
            f"size {height} x {width} px of the {of} (above 1 % of the peak)\n"
            f"strength: peak {found.peak:.3g}, gain {found.gain:.3f}\n"
            f"output {value:.3f}, residual {residual:.2g}"
        )


@dataclass(frozen=True)
class Map:
    """A lazy map of an image.

    Attributes
    ----------
    image
        Computes it.
    axes
        Letter of every axis of the layer.
    factor
        Pixels of the map that a pixel of the layer becomes along y and x.
    name
        Of the layer.
    signed
        Whether its values have both signs.
    expected
        A value to begin the contrast with.
    side
        Pixels along y and x that are computed at a time.
    """

    image: TiledImage
    axes: str
    factor: int
    name: str
    signed: bool
    expected: float
    side: int


def consistency(inspection: Inspection) -> list[Map]:
    """Make the map of where the result departs from the image; computes nothing."""
    from napari_mgbpv2.inspection import consistency_image

    plan = inspection.plan()
    side = max(16, BLOCK_SIDE // plan.scale)
    expected = EXPECTED_SHARE * (plan.values.high - plan.values.low)
    return [Map(consistency_image(plan), plan.axes.replace("s", ""), 1, "consistency", False, expected, side)]


def hallucination(inspection: Inspection, samples: int) -> list[Map]:
    """Make the maps of what noise invents, with its chosen amplitude or else 1; computes nothing.

    Raises
    ------
    ModelError
        The model has no noise input.
    """
    from napari_mgbpv2.inspection import hallucination_images

    plan = inspection.plan()
    spread, difference = hallucination_images(plan, inspection.choices.noise or 1.0, samples)
    axes, expected = plan.axes.replace("s", ""), EXPECTED_SHARE * (plan.values.high - plan.values.low)
    return [
        Map(spread, axes, plan.scale, "hallucination: spread", False, expected, BLOCK_SIDE),
        Map(difference, axes, plan.scale, "hallucination: difference", True, expected, BLOCK_SIDE),
    ]


def find_filter(inspection: Inspection, point: Sequence[float], kind: Kind) -> Found:
    """Compute the filter of the pixel at a point.

    Parameters
    ----------
    inspection
        Of what.
    point
        In pixels of the layer, whose centres are whole numbers; one for each of its axes.
    kind
        Which filter.

    Raises
    ------
    ImageError
        There is no pixel at that point.
    MGBPv2Error
        As planning raises them.
    """
    from napari_mgbpv2.inspection import filter_of_plan

    if not inspection.holds(point):
        raise ImageError(NO_PIXEL)
    plan = inspection.plan()
    axes = plan.axes.replace("s", "")
    factors = axis_factors(axes, 1 if kind is Kind.COLUMN else plan.scale)
    position = tuple(math.floor((at + 0.5) * factor) for at, factor in zip(point, factors, strict=True))
    found = filter_of_plan(
        plan,
        position,
        impulse="target" if kind is Kind.TARGET_COLUMN else "source",
        reverse=kind is Kind.ROW,
        device=inspection.choices.device or "cpu",
    )
    return Found(found, kind, axes)


def axis_factors(axes: str, factor: int) -> tuple[int, ...]:
    """Return ``factor`` for y and x, and 1 for the other axes of a layer."""
    return tuple(factor if axis in "yx" else 1 for axis in axes)
