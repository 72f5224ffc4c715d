"""One network on one device: source pixels through bicubic upscaling and the network, one tile at a time.

An `Engine` owns the prepared weights, the captured CUDA graphs and the results of constant tiles. The `Device` that it
runs on owns what all engines of that device share. The grid and the blending of tiles belong to the callers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_mgbpv2.imaging.noise import noise_window
from napari_mgbpv2.imaging.resampling import ResamplingWeights, upscale_window
from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import MGBPv2, Network, reflect
from napari_mgbpv2.runtime.constant_tiles import ConstantTileCache
from napari_mgbpv2.runtime.cuda_graphs import GraphedNetwork
from napari_mgbpv2.runtime.device import get_device, run_on_engine_thread, to_host
from napari_mgbpv2.runtime.inference import InferenceNetwork
from napari_mgbpv2.tiling.grid import Span

Pixels = npt.NDArray[np.float32]
Read = Callable[[slice, slice], Pixels]
Area = tuple[Span, Span]


class Engine:
    """One network on one device, in one precision.

    Parameters
    ----------
    network
        The network. Its weights are copied, so that later changes do not matter.
    device
        A torch device or a name that `choose_device` accepts.
    precision
        One of `PRECISIONS`. float32 is exact; the others run the convolutions in 16 bits.
    """

    def __init__(self, network: Network, device: str | torch.device, precision: str = "float32") -> None:
        self._device = shared = get_device(device)
        self.device = shared.torch_device
        dtype: torch.dtype = getattr(torch, precision)
        members = [network] if isinstance(network, MGBPv2) else list(network.children())
        # Weights are prepared on the CPU, whatever the device.
        self.networks = run_on_engine_thread(
            lambda: [
                InferenceNetwork(member, shared.workspace, self.device, dtype)
                for member in members
                if isinstance(member, MGBPv2)
            ]
        )
        self._graphed = [GraphedNetwork.for_device(self.device, member) for member in self.networks]
        self._constant_tiles = ConstantTileCache()
        shared.register(self._constant_tiles, *self._graphed)
        self._accepts_noise = isinstance(network, MGBPv2)

    @property
    def keep_on_device(self) -> bool:
        """True if results should stay on the device until they are blended, because it has fast memory of its own."""
        return self._device.has_own_memory

    def run(self, *arguments: Any, **options: Any) -> Pixels:
        """Upscale a part of an image and copy it to host memory: `submit`, then `to_host`.

        Returns
        -------
        ndarray
            (C, rows, columns) of the core, float32.
        """
        return self.to_host(self.submit(*arguments, **options))

    def submit(
        self,
        read: Read,
        tile: Area,
        core: Area,
        shape: tuple[int, int],
        scale: int,
        *,
        noise: float = 0.0,
        seed: int = 0,
        first_channel: int = 0,
    ) -> Tensor:
        """Upscale a part of an image with one forward of each network. On CUDA, return before it has ended.

        Parameters
        ----------
        read
            Called with slices of source rows and columns; returns their (C, h, w) float32 pixels, nominally in [0, 1].
        tile
            Rows and columns to compute, in target pixels. Those outside the image are its reflected border.
        core
            Rows and columns to return, a part of the tile.
        shape
            Height and width of the whole source, in source pixels.
        scale
            Upscaling factor.
        noise
            Noise amplitude W, 0 or more.
        seed, first_channel
            Select the noise: a seed, and the index of this plane's first channel among those of the whole image.

        Returns
        -------
        Tensor
            (C, rows, columns) of the core, float32, on the device; the caller may change it. Pixels within the guard
            of an end of the tile inside the image differ from those of the whole image.
        """
        total: Tensor | None = None
        for index, (network, graphed) in enumerate(zip(self.networks, self._graphed, strict=True)):
            windows = [
                _AxisWindow.covering(span, size, scale, network.config) for span, size in zip(tile, shape, strict=True)
            ]
            source = np.ascontiguousarray(read(*(window.weights.window for window in windows)), dtype=np.float32)
            amplitude = noise if self._accepts_noise else 0.0  # The fidelity ensemble takes no noise.
            noise_field = self._noise(windows, seed, first_channel, len(source)) if amplitude else None
            output_region = windows[0].crop(core[0]), windows[1].crop(core[1])
            forward = partial(self._forward, graphed, source, windows, noise_field, amplitude, output_region)
            if not amplitude:
                weights = windows[0].weights, windows[1].weights
                forward = partial(self._constant_tiles.get_or_compute, index, source, weights, output_region, forward)
            total = self._device.run(partial(self._accumulate, total, forward))
        assert total is not None
        return total

    def to_host(self, result: Tensor) -> Pixels:
        """Wait for a result on the device, and copy it to host memory."""
        return self._device.run(lambda: self._device.start_copy_to_host(result))()

    def to_device(self, pixels: Pixels) -> Tensor:
        """Copy pixels to the device."""
        return self._device.run(lambda: self._device.to_device(pixels))

    def _accumulate(self, total: Tensor | None, forward: Callable[[], Tensor]) -> Tensor:
        """Run one network, and add its output to the total of those before it."""
        with self._device.lock:
            with torch.inference_mode(), self._exact_arithmetic():
                output = forward()
            if total is not None:
                return total.add_(output)
            # A copy: the output may be cached for other tiles, or be a view into a larger tile.
            return output.clone(memory_format=torch.contiguous_format)

    def _forward(
        self,
        network: GraphedNetwork,
        source: Pixels,
        windows: list[_AxisWindow],
        noise_field: Tensor | None,
        amplitude: float,
        output_region: tuple[slice, slice],
    ) -> Tensor:
        to_device = self._device.to_device
        rows, columns = windows
        image = upscale_window(to_device(source), rows.weights, columns.weights, to_device)
        return network(image[None], noise_field, amplitude, output_region)[0]

    def _noise(self, windows: list[_AxisWindow], seed: int, first_channel: int, channels: int) -> Tensor:
        """Return the noise of a tile, (1, C, H, W), reflected in the border as the image is."""
        rows, columns = (window.positions for window in windows)
        top, left = int(rows.min()), int(columns.min())
        size = (int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
        fields = [noise_window(seed, first_channel + channel, top, left, *size) for channel in range(channels)]
        noise_field = np.stack(fields)[:, rows - top][:, :, columns - left]
        return self._device.run(lambda: self._device.to_device(noise_field[None]))

    def _exact_arithmetic(self) -> AbstractContextManager[None]:
        """Make cuDNN compute in full float32 and with the same bits each time.

        By default its convolutions round to TF32, and accumulate in any order.
        """
        if self.device.type != "cuda":
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


@dataclass(frozen=True)
class _AxisWindow:
    """The positions along one axis that a network computes for a part of an image: aligned, and of natural size.

    Attributes
    ----------
    start
        First target position; negative within the reflected border.
    positions
        (n,) int64, target pixel of the image at each position.
    weights
        Source pixels of these, and their weights.
    """

    start: int
    positions: npt.NDArray[np.int64]
    weights: ResamplingWeights

    @classmethod
    def covering(cls, span: Span, source_size: int, scale: int, config: ModelConfig) -> _AxisWindow:
        """Return the smallest window that contains a span of target positions."""
        size = source_size * scale
        start, length = config.window(span.start, span.stop, size)
        positions = reflect(torch.arange(start, start + length), size).numpy()
        return cls(start, positions, ResamplingWeights.of(positions, scale, source_size))

    def crop(self, span: Span) -> slice:
        """Return a span of target positions as a slice of this window."""
        return slice(span.start - self.start, span.stop - self.start)


def to_host_as(values: ValueMap, unit: Tensor) -> npt.NDArray[Any]:
    """Convert network output to an image's values and copy it to host memory, with the bits of `ValueMap.from_unit`.

    Parameters
    ----------
    values
        The map to the image's values. To dtypes of fewer than 4 bytes it is applied on the device, which leaves fewer
        bytes to copy.
    unit
        Network output, any shape, float32, 0 to 1 for black to white, on any device. It is used as working memory.

    Returns
    -------
    ndarray
        The values in the dtype of the map, of the same shape.
    """
    kind, is_small = values.dtype.kind, values.dtype.itemsize < 4
    if is_small:
        # One operation at a time, as in NumPy: a fused multiplication and addition would round once instead of twice.
        unit.mul_(float(np.float32(values.high - values.low)))
        unit.add_(float(np.float32(values.low)))
        if kind == "b":
            unit = unit.ge(0.5 * (values.low + values.high))
        elif kind == "f":
            unit = unit.half()
        else:
            limits = np.iinfo(values.dtype)
            unit = unit.round_().clamp_(limits.min, limits.max).to(getattr(torch, values.dtype.name))
    array = to_host(unit)
    return array if is_small else values.from_unit(array)
