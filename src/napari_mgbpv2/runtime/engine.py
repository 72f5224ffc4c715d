"""One network on one device: source pixels through bicubic upscaling and the network, one tile at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_mgbpv2.imaging.noise import noise_window
from napari_mgbpv2.imaging.resampling import ResamplingWeights, upscale_window
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import MGBPv2, Network, reflect
from napari_mgbpv2.runtime.constant_tiles import ConstantTileCache
from napari_mgbpv2.runtime.cuda_graphs import GraphedNetwork
from napari_mgbpv2.runtime.devices import PRECISIONS
from napari_mgbpv2.runtime.inference import InferenceNetwork, Workspace
from napari_mgbpv2.runtime.thread import run_on_engine_thread
from napari_mgbpv2.runtime.transfers import Pixels, transfers_of
from napari_mgbpv2.tiling.grid import Span

Read = Callable[[slice, slice], Pixels]
Area = tuple[Span, Span]


class _Clearable(Protocol):
    """What an engine keeps for later tiles."""

    def clear(self) -> None:
        """Give its memory back."""


@dataclass
class _Device:
    """What all engines of a device share: its turn, and the memory that they use in turns."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    workspace: Workspace = field(default_factory=Workspace)
    kept: WeakSet[_Clearable] = field(default_factory=WeakSet)


_devices: dict[torch.device, _Device] = {}
_devices_lock = threading.Lock()


class Engine:
    """One network on one device, in one precision.

    Parameters
    ----------
    network
        Copied: later changes of its weights have no effect.
    device
        As `choose_device` gives it.
    precision
        One of `PRECISIONS`. float32 is exact; the others run the convolutions in fewer bits.
    """

    def __init__(self, network: Network, device: torch.device, precision: str = "float32") -> None:
        with _devices_lock:
            self._shared = _devices.setdefault(device, _Device())
        self.device = device
        self._transfers = transfers_of(device)
        members = [network] if isinstance(network, MGBPv2) else list(network.children())
        self.networks = run_on_engine_thread(
            lambda: [
                InferenceNetwork(member, self._shared.workspace, device, PRECISIONS[precision])
                for member in members
                if isinstance(member, MGBPv2)
            ]
        )
        self._graphed = [GraphedNetwork.for_device(device, prepared) for prepared in self.networks]
        self._constant_tiles = ConstantTileCache()
        with self._shared.lock:
            self._shared.kept.update((self._constant_tiles, *self._graphed))
        # the fidelity ensemble hears no noise
        self._accepts_noise = isinstance(network, MGBPv2)

    @property
    def keep_on_device(self) -> bool:
        """Whether the device has fast memory of its own, where results best stay until they have been blended."""
        return self.device.type == "cuda"

    def run(self, *arguments: Any, **options: Any) -> Pixels:
        """Upscale a part of an image as `submit` does, and fetch the result: (C, rows, columns), float32."""
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
        """Upscale a part of an image with one forward of each network, which on CUDA is only started.

        Parameters
        ----------
        read
            Gives (C, h, w) float32 source pixels, nominally in [0, 1], for slices of rows and columns.
        tile
            Rows and columns to compute, in target pixels; those outside the image are its reflected border.
        core
            Rows and columns to give, a part of the tile.
        shape
            Height and width of the whole source.
        scale
            Upscaling factor.
        noise, seed, first_channel
            Noise amplitude W, seed, and number of this plane's first channel among those of the whole image.

        Returns
        -------
        Tensor
            (C, rows, columns) of the core, float32, on the device; it may be changed. Pixels closer than the guard
            to an end of the tile that is no end of the image are not those of the whole image.
        """
        total: Tensor | None = None
        for number, (network, graphed) in enumerate(zip(self.networks, self._graphed, strict=True)):
            windows = [
                _Window.covering(span, size, scale, network.config) for span, size in zip(tile, shape, strict=True)
            ]
            source = np.ascontiguousarray(read(*(window.weights.window for window in windows)), dtype=np.float32)
            amplitude = noise if self._accepts_noise else 0.0
            noise_field = self._noise(windows, seed, first_channel, len(source)) if amplitude else None
            output_region = windows[0].crop(core[0]), windows[1].crop(core[1])
            forward = partial(self._forward, graphed, source, windows, noise_field, amplitude, output_region)
            if noise_field is None:
                weights = windows[0].weights, windows[1].weights
                forward = partial(self._constant_tiles.get_or_compute, number, source, weights, output_region, forward)
            total = run_on_engine_thread(partial(self._add, total, forward))
        assert total is not None
        return total

    def to_host(self, result: Tensor) -> Pixels:
        """Wait for a result, and bring it to memory."""
        return run_on_engine_thread(lambda: self._transfers.start_copy_to_host(result))()

    def to_device(self, pixels: Pixels) -> Tensor:
        """Bring pixels to the device."""
        return run_on_engine_thread(lambda: self._transfers.to_device(pixels))

    def _add(self, total: Tensor | None, forward: Callable[[], Tensor]) -> Tensor:
        """Run one network, and add what it gives to the total."""
        with self._shared.lock:
            with torch.inference_mode(), self._arithmetic():
                output = forward()
            if total is not None:
                return total.add_(output)
            # a copy: what is given may be kept for other tiles, or be a part of a larger tile
            return output.clone(memory_format=torch.contiguous_format)

    def _forward(
        self,
        network: GraphedNetwork,
        source: Pixels,
        windows: list[_Window],
        noise_field: Tensor | None,
        amplitude: float,
        output_region: tuple[slice, slice],
    ) -> Tensor:
        to_device = self._transfers.to_device
        rows, columns = windows
        image = upscale_window(to_device(source), rows.weights, columns.weights, to_device)
        return network(image[None], noise_field, amplitude, output_region)[0]

    def _noise(self, windows: list[_Window], seed: int, first_channel: int, channels: int) -> Tensor:
        rows, columns = (window.positions for window in windows)
        top, left = int(rows.min()), int(columns.min())
        size = (int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
        fields = [noise_window(seed, first_channel + channel, top, left, *size) for channel in range(channels)]
        noise_field = np.stack(fields)[:, rows - top][:, :, columns - left]
        return run_on_engine_thread(lambda: self._transfers.to_device(noise_field[None]))

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Let CUDA compute in the full width of its numbers, and always with the same bits.

        By default, its convolutions would round to TF32, and add up in whatever order.
        """
        with contextlib.ExitStack() as stack:
            if self.device.type == "cuda":
                flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
                stack.enter_context(flags)
            yield


@dataclass(frozen=True)
class _Window:
    """What a network computes along one axis for a part of an image: aligned, and of natural size.

    Attributes
    ----------
    start
        First target position; negative within the reflected border.
    positions
        Target pixel of the image that stands at each position.
    weights
        Source pixels of these.
    """

    start: int
    positions: npt.NDArray[np.int64]
    weights: ResamplingWeights

    @classmethod
    def covering(cls, span: Span, source_size: int, scale: int, config: ModelConfig) -> _Window:
        size = source_size * scale
        start, length = config.window(span.start, span.stop, size)
        positions = reflect(torch.arange(start, start + length), size).numpy()
        return cls(start, positions, ResamplingWeights.of(positions, scale, source_size))

    def crop(self, span: Span) -> slice:
        return slice(span.start - self.start, span.stop - self.start)


def release_device_memory() -> None:
    """Give back the memory that is kept for later forwards; engines and their weights stay."""
    for shared in list(_devices.values()):
        with shared.lock:
            shared.workspace.clear()
            for kept in shared.kept:
                kept.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
