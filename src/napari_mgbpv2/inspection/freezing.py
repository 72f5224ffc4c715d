"""Freeze the activations of a network: at one image it is an affine map, y = F x + r, over an area of its output.

The ReLUs are the only non-linearity. With their states frozen at an image, the network is affine in the image. F is
the Jacobian there. Forward-mode differentiation applies it to an image (columns of F), reverse mode applies its
transpose to an output (rows of F), both exactly.

An area of the output depends only on the image within the network's reach. So each network runs on an aligned window of
natural size that contains the area and its reach, like a tile. Within the area, the output equals that of the whole
image.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_mgbpv2.imaging.noise import noise_window
from napari_mgbpv2.imaging.resampling import ResamplingWeights
from napari_mgbpv2.model.network import MGBPv2, Network, fold_channels, reflect
from napari_mgbpv2.runtime import run_on_engine_thread
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.upscaling import UpscalePlan

Numbers = npt.NDArray[np.float64]
Region = tuple[Span, Span]


@dataclass(frozen=True)
class Grid:
    """Pixel grid of x in y = F x + r: the source, or the bicubically upscaled source.

    Attributes
    ----------
    scale
        Target pixels per grid pixel along each axis: the upscaling factor for the source, else 1.
    shape
        Height and width in grid pixels.
    """

    scale: int
    shape: tuple[int, int]

    def upsampling(self, positions: npt.NDArray[np.int64], axis: int) -> tuple[Span, Numbers]:
        """Return the grid pixels that target positions depend on along an axis, and (positions, pixels) weights."""
        taps = ResamplingWeights.of(positions, self.scale, self.shape[axis])
        pixels = Span(taps.window.start, taps.window.stop)
        shares = np.zeros((len(positions), pixels.size))
        np.add.at(shares, (np.arange(len(positions))[:, np.newaxis], taps.indices - pixels.start), taps.weights)
        return pixels, shares

    def reached(self, span: Span, reach: int, axis: int) -> Span:
        """Return all grid pixels along an axis that can influence the target positions ``span``."""
        size = self.shape[axis] * self.scale
        near = np.arange(max(0, span.start - reach), min(size, span.stop + reach))
        return self.upsampling(near, axis)[0]

    def reaching(self, pixel: int, reach: int, axis: int) -> Span:
        """Return all target positions along an axis that a grid pixel can influence."""
        size, halo = self.shape[axis] * self.scale, 2 if self.scale > 1 else 0  # pixels that the cubic kernel spans
        first, last = (pixel - halo) * self.scale - reach, (pixel + 1 + halo) * self.scale + reach
        return Span(max(0, first), min(size, last))


@dataclass(frozen=True)
class _FrozenMember:
    """Network of a plan or of its ensemble, with its window for the area.

    Attributes
    ----------
    network
        The network.
    positions
        Target row and column of the image for each row and column of the window.
    image
        (1, C, H, W), the upscaled source on the window.
    noise, amplitude
        (1, C, H, W) standard normal noise or None, and its amplitude W.
    area
        Rows and columns of the window that form the output.
    """

    network: MGBPv2
    positions: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    image: Tensor
    noise: Tensor | None
    amplitude: float
    area: tuple[slice, slice]

    def run(self, image: Tensor) -> Tensor:
        """Run the network on (1, C, H, W) and return (1, C, h, w) of the area."""
        output: Tensor = self.network(image, self.noise, self.amplitude)
        return output[..., self.area[0], self.area[1]]


class FrozenNetwork:
    """Network of a plan over an area of one plane, with the activations that the image causes.

    Arithmetic is in float64 if the device supports it. Values are in [0, 1] from black to white.

    Parameters
    ----------
    plan
        Upscaling plan with the image and the noise.
    network
        Network of the plan; it is copied.
    plane, group
        Plane of the image, and number of the group of samples that the network processes together.
    device
        Device of the computation.
    area
        Rows and columns of the output, in target pixels.
    """

    def __init__(
        self,
        plan: UpscalePlan,
        network: Network,
        plane: tuple[int, ...],
        group: int,
        device: torch.device,
        area: Region,
    ) -> None:
        self._plan, self._plane, self._area = plan, plane, area
        self._samples = plan.layout.groups[group]
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self._device = device
        if self._samples.size == 1 and plan.compute_tile.channels > 1:
            network = fold_channels(network)
        is_ensemble = not isinstance(network, MGBPv2)  # ensembles accept no noise
        given = network
        network = run_on_engine_thread(
            lambda: copy.deepcopy(given).eval().requires_grad_(False).to(device, self._dtype)
        )
        amplitude = 0.0 if is_ensemble else plan.compute_tile.noise_of(self._samples)
        self._members = [self._member(each, amplitude) for each in network.modules() if isinstance(each, MGBPv2)]

    def value_and_linear_part(self) -> tuple[Numbers, Numbers]:
        """Return y and F x over the area, (C, h, w) each."""
        pairs = [_jvp(member, member.image) for member in self._members]
        value, linear = (sum(each[1:], start=each[0]) for each in zip(*pairs, strict=True))
        return value, linear

    def column(self, grid: Grid, pixel: tuple[int, int], impulse: Numbers) -> Numbers:
        """Return F e over the area, (C, h, w), for the image e that is ``impulse``, (C,), at one pixel and else 0."""
        total = np.zeros((self._samples.size, *(span.size for span in self._area)))
        for member in self._members:
            profiles = []
            for axis in (0, 1):
                pixels, shares = grid.upsampling(member.positions[axis], axis)
                inside = pixels.start <= pixel[axis] < pixels.stop
                profiles.append(shares[:, pixel[axis] - pixels.start] if inside else np.zeros(len(shares)))
            tangent = impulse[:, np.newaxis, np.newaxis] * np.multiply.outer(*profiles)
            total += _jvp(member, self._tensor(tangent))[1]
        return total

    def row(self, grid: Grid, cotangent: Numbers, pixels: Region) -> Numbers:
        """Return the transpose of F applied to ``cotangent``, (C, h, w) over the area, at some pixels of the grid."""
        total = np.zeros((self._samples.size, *(span.size for span in pixels)))
        for member in self._members:
            gradient = run_on_engine_thread(partial(_vjp, member, self._tensor(cotangent)))
            of_window, of_result = [], []
            for axis in (0, 1):
                there, shares = grid.upsampling(member.positions[axis], axis)
                first, last = max(there.start, pixels[axis].start), min(there.stop, pixels[axis].stop)
                of_window.append(shares[:, first - there.start : last - there.start])
                of_result.append(slice(first - pixels[axis].start, last - pixels[axis].start))
            total[:, of_result[0], of_result[1]] += of_window[0].T @ gradient @ of_window[1]
        return total

    def _member(self, network: MGBPv2, amplitude: float) -> _FrozenMember:
        compute, layout, config = self._plan.compute_tile, self._plan.layout, network.config
        sizes = layout.shape[layout.y], layout.shape[layout.x]
        source = Grid(compute.scale, (sizes[0] // compute.scale, sizes[1] // compute.scale))
        positions, inner = [], []
        for span, size in zip(self._area, sizes, strict=True):
            start, length = config.window(span.start - config.reach, span.stop + config.reach, size)
            positions.append(reflect(torch.arange(start, start + length), size).numpy())
            inner.append(slice(span.start - start, span.stop - start))
        rows, down = source.upsampling(positions[0], 0)
        columns, across = source.upsampling(positions[1], 1)
        pixels = compute.read(self._plane, self._samples, slice(*rows), slice(*columns))
        image = down @ compute.values.to_unit(pixels).astype(np.float64) @ across.T
        noise = self._noise(positions[0], positions[1]) if amplitude else None
        return _FrozenMember(
            network, (positions[0], positions[1]), self._tensor(image), noise, amplitude, (inner[0], inner[1])
        )

    def _noise(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Tensor:
        """Return the noise of the window, a crop of the whole image's noise."""
        layout, seed = self._plan.layout, self._plan.compute_tile.seed
        sizes = [layout.shape[axis] for axis in layout.plane_axes]
        number = int(np.ravel_multi_index(self._plane, sizes)) if sizes else 0
        first = number * layout.groups[-1].stop + self._samples.start
        top, left = int(rows.min()), int(columns.min())
        size = int(rows.max()) + 1 - top, int(columns.max()) + 1 - left
        fields = [noise_window(seed, first + sample, top, left, *size) for sample in range(self._samples.size)]
        return self._tensor(np.stack(fields)[:, rows - top][:, :, columns - left])

    def _tensor(self, numbers: npt.NDArray[np.floating]) -> Tensor:
        """Copy (C, H, W) numbers to the device as (1, C, H, W)."""
        tensor = torch.from_numpy(np.ascontiguousarray(numbers))[None]
        return run_on_engine_thread(lambda: tensor.to(self._device, self._dtype))


def _jvp(member: _FrozenMember, tangent: Tensor) -> tuple[Numbers, Numbers]:
    """Return the output and its derivative along ``tangent``, (C, h, w) of the area each."""
    pair = run_on_engine_thread(lambda: torch.func.jvp(member.run, (member.image,), (tangent,)))
    value, response = (each[0].cpu().numpy().astype(np.float64) for each in pair)
    return value, response


def _vjp(member: _FrozenMember, cotangent: Tensor) -> Numbers:
    """Apply the transposed derivative to ``cotangent``, (1, C, h, w); return (C, H, W) of the window."""
    pull = torch.func.vjp(member.run, member.image)[1]
    gradient: Numbers = pull(cotangent)[0][0].cpu().numpy().astype(np.float64)
    return gradient
