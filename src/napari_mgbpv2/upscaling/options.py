"""The options of upscaling, listed once.

`UpscaleOptions` owns their names, types, defaults, ranges and descriptions. `upscale` and `convert` take the same
keywords, the arguments of the commands and the forms of the widgets are made from the annotations, and the provenance
of a result records each of them. It does not own what depends on an image: `plan_upscale` checks that.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.model.config import PRECISIONS
from napari_mgbpv2.tiling.grid import WINDOWS

if TYPE_CHECKING:
    import os

    from napari_mgbpv2.model.network import Network
    from napari_mgbpv2.model.zoo import ModelCard

    Model = str | os.PathLike[str] | ModelCard | Network

LARGEST_SCALE = 64
LARGEST_TILE = 16_384  # pixels; forms offer no larger ones


@dataclass(frozen=True)
class Option:
    """How an option is presented in commands and forms.

    Attributes
    ----------
    label
        A word or two.
    help
        A phrase, without a full stop.
    group
        "model", "image" or "tiles": what it is shown with.
    metavar
        Placeholder of its value in the help of a command; one per value.
    unit
        Of its value; "px" are pixels of the result.
    choices
        The values that it may have, the default first; empty if it takes any of its type.
    low, high
        Range of a number.
    """

    label: str
    help: str
    group: str
    metavar: str | tuple[str, ...]
    unit: str = ""
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions:
    """How an image is upscaled; None leaves a choice to the image, the model or the machine.

    Attributes
    ----------
    scale
        Upscaling factor along y and x, 1 to 64.
    model
        Name of a packaged model, path of a model file, card, or network.
    noise
        Amplitude W of the noise input; 0 for fidelity.
    seed
        Of the noise.
    device
        "cpu", "cuda", "cuda:1" or "mps".
    precision
        "float32", "bfloat16" or "float16".
    axes
        One letter per axis of the image.
    value_range
        Values of black and white.
    tile, overlap, guard
        Largest tile, least overlap of neighbours and discarded border, in target pixels.
    window
        How overlapping tiles are blended: "hamming", "triangle" or "flat".

    Raises
    ------
    ImageError
        The scale is not a whole number from 1 to 64.
    ModelError
        The noise is not a finite number.
    """

    scale: Annotated[
        int | None,
        Option("Scale", "upscaling factor (default: the model's, else 4)", "model", "N", low=1, high=LARGEST_SCALE),
    ] = None
    model: Annotated[
        Any,
        Option(
            "Model", "a model's name, see mgbpv2-models, or a file (default: by scale and channels)", "model", "MODEL"
        ),
    ] = None
    noise: Annotated[
        float, Option("Noise W", "0 fidelity ... 1 perceptual (default: 0)", "model", "W", low=0, high=1)
    ] = 0.0
    seed: Annotated[int, Option("Seed", "seed of the noise (default: 0)", "model", "N", low=0, high=2**31 - 1)] = 0
    device: Annotated[
        str | None, Option("Device", "cuda, cuda:1, mps or cpu (default: the fastest there is)", "model", "NAME")
    ] = None
    precision: Annotated[
        str | None,
        Option("Precision", "float32 (exact, the default), bfloat16 or float16", "model", "NAME", choices=PRECISIONS),
    ] = None
    axes: Annotated[
        str | None, Option("Axes", 'such as "zyx" or "yxs" (default: what the file says)', "image", "LETTERS")
    ] = None
    value_range: Annotated[
        tuple[float, float] | None,
        Option(
            "Black and white",
            "values that the network takes for black and white (default: those of the data type)",
            "image",
            ("BLACK", "WHITE"),
        ),
    ] = None
    tile: Annotated[
        int | None,
        Option("Tile", "largest tile; smaller ones need less memory", "tiles", "PX", "px", low=1, high=LARGEST_TILE),
    ] = None
    overlap: Annotated[
        int | None,
        Option(
            "Overlap", "least overlap of neighbours, guards included", "tiles", "PX", "px", low=0, high=LARGEST_TILE
        ),
    ] = None
    guard: Annotated[
        int | None,
        Option(
            "Guard", "border of a tile to discard (default: the model's)", "tiles", "PX", "px", low=0, high=LARGEST_TILE
        ),
    ] = None
    window: Annotated[
        str, Option("Window", "hamming (default), triangle or flat", "tiles", "NAME", choices=tuple(WINDOWS))
    ] = "hamming"

    def __post_init__(self) -> None:
        """Check what depends on nothing else."""
        check_scale(self.scale)
        if not math.isfinite(self.noise):
            raise ModelError(
                f"noise is {self.noise}; it must be a number, such as 0 for fidelity or 1 for perceptual quality."
            )

    def with_image_defaults(self, axes: str | None, value_range: tuple[float, float] | None) -> UpscaleOptions:
        """Return the options with the axes and the value range of an image, unless they have their own."""
        return replace(self, axes=self.axes or axes, value_range=self.value_range or value_range)

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True)
class OptionField:
    """An option with its name, type and default.

    Attributes
    ----------
    name
        Of the field of `UpscaleOptions`.
    type
        int, float, str or tuple; Any for a model.
    default
        Its default.
    option
        How it is presented.
    """

    name: str
    type: Any
    default: Any
    option: Option


@cache
def option_fields() -> dict[str, OptionField]:
    """Return all options by name, in the order of `UpscaleOptions`."""
    hints = get_type_hints(UpscaleOptions, include_extras=True)
    found = {}
    for each in fields(UpscaleOptions):
        annotated, option = get_args(hints[each.name])
        kinds = [kind for kind in get_args(annotated) if kind is not type(None)] or [annotated]
        found[each.name] = OptionField(each.name, get_origin(kinds[0]) or kinds[0], each.default, option)
    return found


def check_scale(scale: object) -> None:
    """Raise `ImageError` unless a scale is None or a whole number from 1 to 64."""
    if scale is None:
        return
    whole = isinstance(scale, numbers.Integral) and not isinstance(scale, bool)
    if not whole or not 1 <= int(scale) <= LARGEST_SCALE:  # type: ignore[call-overload]
        raise ImageError(f"scale is {scale!r}; it must be a whole number from 1 to {LARGEST_SCALE}, such as 4.")
