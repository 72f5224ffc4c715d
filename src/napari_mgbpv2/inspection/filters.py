"""Compute deep filters: the linear filter that the network is at one pixel.

P. Navarrete Michelini, D. Zhu, H. Liu: "Multi-Scale Recursive and Perception-Distortion Controllable Image
Super-Resolution", ECCV Workshops 2018, introduces deep filter visualisation; figure 8 of the MGBPv2 paper shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.inspection.freezing import FrozenNetwork, Grid, Region
from napari_mgbpv2.inspection.networks import load_network
from napari_mgbpv2.model.network import configurations
from napari_mgbpv2.runtime import choose_device
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.upscaling import UpscalePlan, plan_upscale
from napari_mgbpv2.upscaling.options import UpscaleOptions

if TYPE_CHECKING:
    from napari_mgbpv2.upscaling.options import Model

Numbers = npt.NDArray[np.float64]

IMPULSES = ("source", "target")
FAINT = 0.01  # share of the peak that bounds the extent of a filter


@dataclass(frozen=True, eq=False)
class DeepFilter:
    """Filter at a pixel, for the activations that the image causes.

    In y = F x + r, a forward filter is a column of F: the response to the pixel. A reversed filter is a row of F: the
    contributions to the pixel. Values are in [0, 1] from black to white, so a filter has no unit.

    Attributes
    ----------
    filter
        (height, width, samples) float64, over the receptive field of the network; the samples are those
        that the network processes together, 1 for a grey image.
    offset
        Row and column of the filter's first pixel in its image.
    gain
        Factor of a flat grey area if every pixel had this filter: 1 for bicubic upscaling.
    output
        y, without rounding: (height, width, samples) at the filter's pixels. For a reversed filter, a scalar: that of
        the pixel.
    residual
        r, the part of y that is independent of the pixels, of the shape of ``output``. 0 for a network without
        biases and noise.
    factor
        Pixels of the filter's image per source pixel along y and x: the upscaling factor if that image is the result
        or the upscaled source, 1 if it is the source.
    position
        The requested pixel, one number per axis except the samples.
    """

    filter: Numbers
    offset: tuple[int, int]
    gain: float
    output: Numbers
    residual: Numbers
    factor: int = 1
    position: tuple[int, ...] = ()

    @property
    def peak(self) -> float:
        """Largest absolute value of the filter."""
        return float(np.abs(self.filter).max())

    def extent(self, share: float = FAINT) -> tuple[slice, slice]:
        """Return rows and columns of the smallest box with all values above a share of the peak; empty if all are 0."""
        strong = np.abs(self.filter).max(axis=2) > share * self.peak
        places = [np.flatnonzero(strong.any(axis=axis)) for axis in (1, 0)]
        rows, columns = (slice(int(each[0]), int(each[-1]) + 1) if len(each) else slice(0, 0) for each in places)
        return rows, columns

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the default `extent` in pixels."""
        rows, columns = self.extent()
        return rows.stop - rows.start, columns.stop - columns.start


def deep_filter(
    model: Model | None,
    image: Any,
    position: Sequence[int],
    *,
    impulse: Literal["source", "target"] = "source",
    reverse: bool = False,
    channel: int | None = None,
    scale: int | None = None,
    axes: str | None = None,
    noise: float = 0.0,
    seed: int = 0,
    value_range: tuple[float, float] | None = None,
    device: str = "cpu",
) -> DeepFilter:
    """Compute the network's filter at one pixel of the image, or of the result in reverse.

    Only the receptive field of the pixel is read and computed. The result equals that of the whole image.

    Parameters
    ----------
    model
        Packaged name, file or network; None for the default model of the scale.
    image
        Image to upscale, any array that `upscale` takes.
    position
        The pixel, one number per axis except the samples; negative numbers count from the end. Forward, it is a pixel
        of the image that ``impulse`` selects; reversed, of the result.
    impulse
        Choice of x. "source": the image; the filter includes bicubic upscaling and resembles the bicubic kernel in flat
        areas. "target": the bicubically upscaled image, the input of the network.
    reverse
        False: the response to the pixel, in the result. True: the contributions to a pixel of the result, in x.
    channel
        Sample of the pixel. By default all samples of the first group that the network processes together: forward, all
        are raised by 1; reversed, the results are averaged.
    scale
        Upscaling factor; by default that of the model.
    axes
        Axes of the image, one letter each; by default guessed from its shape.
    noise
        Amplitude W of the noise.
    seed
        Seed of the noise.
    value_range
        Values of black and white; by default those of the type.
    device
        Device such as "cpu" or "cuda". Computation is in float64, on "mps" in float32.

    Raises
    ------
    ImageError
        The pixel does not exist, or the image cannot be upscaled.
    ModelError, DeviceError
        The model cannot be used, or the device does not exist.
    """
    plan = plan_upscale(
        image, UpscaleOptions(scale=scale, model=model, axes=axes, noise=noise, seed=seed, value_range=value_range)
    )
    if impulse not in IMPULSES:
        raise ImageError(f"impulse is {impulse!r}; choose one of {', '.join(map(repr, IMPULSES))}.")
    return filter_of_plan(plan, position, impulse=impulse, reverse=reverse, channel=channel, device=device)


def filter_of_plan(
    plan: UpscalePlan,
    position: Sequence[int],
    *,
    impulse: Literal["source", "target"] = "source",
    reverse: bool = False,
    channel: int | None = None,
    device: str = "cpu",
) -> DeepFilter:
    """Compute a filter for an upscaling plan; see `deep_filter` for the other parameters and the errors."""
    layout = plan.layout
    sizes = layout.shape[layout.y], layout.shape[layout.x]
    factor = plan.scale if impulse == "source" else 1
    grid = Grid(factor, (sizes[0] // factor, sizes[1] // factor))
    at = _normalize_position(plan, position, sizes if reverse else grid.shape)
    group, chosen = _choose_samples(plan, channel)
    network = load_network(plan)
    freeze = partial(
        FrozenNetwork,
        plan,
        network,
        tuple(at[axis] for axis in layout.plane_axes),
        group,
        torch.device(choose_device(device)),
    )
    reach = max(config.reach for config in configurations(network))
    pixel = at[layout.y], at[layout.x]
    found = (_row if reverse else _column)(freeze, grid, pixel, reach, chosen)
    return replace(found, factor=plan.scale // grid.scale if reverse else plan.scale, position=tuple(at.values()))


def _column(
    freeze: Callable[[Region], FrozenNetwork], grid: Grid, pixel: tuple[int, int], reach: int, chosen: Numbers
) -> DeepFilter:
    """Compute the response to the chosen samples of a pixel of the grid."""
    rows, columns = (grid.reaching(each, reach, axis) for axis, each in enumerate(pixel))
    frozen = freeze((rows, columns))
    output, linear = frozen.value_and_linear_part()
    response = frozen.column(grid, pixel, chosen)
    return DeepFilter(
        filter=_samples_last(response),
        offset=(rows.start, columns.start),
        gain=float((chosen @ response.sum(axis=(1, 2))) / chosen.sum() / grid.scale**2),
        output=_samples_last(output),
        residual=_samples_last(output - linear),
    )


def _row(
    freeze: Callable[[Region], FrozenNetwork], grid: Grid, pixel: tuple[int, int], reach: int, chosen: Numbers
) -> DeepFilter:
    """Compute the contributions to the mean of the chosen samples of a pixel of the result."""
    area = Span(pixel[0], pixel[0] + 1), Span(pixel[1], pixel[1] + 1)
    rows, columns = (grid.reached(each, reach, axis) for axis, each in enumerate(area))
    frozen = freeze(area)
    output, linear = (each[:, 0, 0] for each in frozen.value_and_linear_part())
    shares = chosen / chosen.sum()
    made_of = frozen.row(grid, shares.reshape(-1, 1, 1), (rows, columns))
    return DeepFilter(
        filter=_samples_last(made_of),
        offset=(rows.start, columns.start),
        gain=float(made_of.sum()),
        output=shares @ output,
        residual=shares @ (output - linear),
    )


def _normalize_position(plan: UpscalePlan, position: Sequence[int], sizes: tuple[int, int]) -> dict[int, int]:
    """Return the position per axis except the samples, counted from the start."""
    layout = plan.layout
    shape = {axis: size for axis, size in enumerate(layout.shape) if axis != layout.samples}
    shape |= {layout.y: sizes[0], layout.x: sizes[1]}
    given = tuple(position)
    inside = len(given) == len(shape) and all(
        -size <= number < size for number, size in zip(given, shape.values(), strict=True)
    )
    if not inside:
        letters = "".join(plan.axes[axis] for axis in shape)
        raise ImageError(
            f"position is {given}; give one number for each of the axes {letters!r}, below {tuple(shape.values())}."
        )
    return {axis: int(number) % size for (axis, size), number in zip(shape.items(), given, strict=True)}


def _choose_samples(plan: UpscalePlan, channel: int | None) -> tuple[int, Numbers]:
    """Return the number of the group of samples, and a mask of the chosen ones in it."""
    groups = plan.layout.groups
    if channel is None:
        return 0, np.ones(groups[0].size)
    for number, group in enumerate(groups):
        if group.start <= channel < group.stop:
            return number, (np.arange(*group) == channel).astype(np.float64)
    raise ImageError(f"channel is {channel}; a pixel of the image has {groups[-1].stop}, counted from 0.")


def _samples_last(planes: Numbers) -> Numbers:
    return np.moveaxis(planes, 0, 2)
