"""One network on one device: source pixels through bicubic upscaling and the network, one tile at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_mgbpv2.config import ModelConfig
from napari_mgbpv2.engine.devices import PRECISIONS
from napari_mgbpv2.engine.even import EvenTiles
from napari_mgbpv2.engine.thread import in_engine_thread
from napari_mgbpv2.engine.transfers import Pixels, Transfers
from napari_mgbpv2.inference import PreparedNetwork, Workspace
from napari_mgbpv2.network import MGBPv2, Network, reflect
from napari_mgbpv2.noise import noise_window
from napari_mgbpv2.resampling import Taps, upscale_window
from napari_mgbpv2.tiling import Span

Read = Callable[[slice, slice], Pixels]
Area = tuple[Span, Span]


@dataclass
class _Device:
    """What all engines of a device share: its turn, and the memory that they use in turns."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    workspace: Workspace = field(default_factory=Workspace)
    even: WeakSet[EvenTiles] = field(default_factory=WeakSet)


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
        self._transfers = Transfers(device)
        members = [network] if isinstance(network, MGBPv2) else list(network.children())
        self.networks = in_engine_thread(
            lambda: [
                PreparedNetwork(member, self._shared.workspace, device, PRECISIONS[precision])
                for member in members
                if isinstance(member, MGBPv2)
            ]
        )
        self._even = EvenTiles()
        with self._shared.lock:
            self._shared.even.add(self._even)
        # the fidelity ensemble hears no noise
        self._hears_noise = isinstance(network, MGBPv2)

    def run(
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
    ) -> Pixels:
        """Upscale a part of an image with one forward of each network.

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
        ndarray
            (C, rows, columns) of the core, float32. Pixels closer than the guard to an end of the tile that is no
            end of the image are not those of the whole image.
        """
        total: Tensor | None = None
        for number, network in enumerate(self.networks):
            windows = [
                _Window.around(span, size, scale, network.config) for span, size in zip(tile, shape, strict=True)
            ]
            source = np.ascontiguousarray(read(*(window.taps.window for window in windows)), dtype=np.float32)
            amplitude = noise if self._hears_noise else 0.0
            field = self._noise(windows, seed, first_channel, len(source)) if amplitude else None
            wanted = windows[0].crop(core[0]), windows[1].crop(core[1])
            forward = partial(self._forward, network, source, windows, field, amplitude, wanted)
            if field is None:
                taps = windows[0].taps, windows[1].taps
                forward = partial(self._even.find_or_compute, number, source, taps, wanted, forward)
            total = in_engine_thread(partial(self._add, total, forward))
        assert total is not None
        found = total
        return in_engine_thread(lambda: self._transfers.from_device(found))()

    def _add(self, total: Tensor | None, forward: Callable[[], Tensor]) -> Tensor:
        """Run one network, and add what it gives to the total."""
        with self._shared.lock, torch.inference_mode(), self._arithmetic():
            output = forward()
            return output if total is None else total + output

    def _forward(
        self,
        network: PreparedNetwork,
        source: Pixels,
        windows: list[_Window],
        field: Tensor | None,
        amplitude: float,
        wanted: tuple[slice, slice],
    ) -> Tensor:
        image = upscale_window(self._transfers.to_device(source), *(window.taps for window in windows))
        return network(image[None], field, amplitude, wanted)[0]

    def _noise(self, windows: list[_Window], seed: int, first_channel: int, channels: int) -> Tensor:
        rows, columns = (window.positions for window in windows)
        top, left = int(rows.min()), int(columns.min())
        size = (int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
        fields = [noise_window(seed, first_channel + channel, top, left, *size) for channel in range(channels)]
        field = np.stack(fields)[:, rows - top][:, :, columns - left]
        return in_engine_thread(lambda: self._transfers.to_device(field[None]))

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
    taps
        Source pixels of these.
    """

    start: int
    positions: npt.NDArray[np.int64]
    taps: Taps

    @classmethod
    def around(cls, span: Span, source_size: int, scale: int, config: ModelConfig) -> _Window:
        size = source_size * scale
        start, length = config.window(span.start, span.stop, size)
        positions = reflect(torch.arange(start, start + length), size).numpy()
        return cls(start, positions, Taps.of(positions, scale, source_size))

    def crop(self, span: Span) -> slice:
        return slice(span.start - self.start, span.stop - self.start)


def release_device_memory() -> None:
    """Give back the memory that is kept for later forwards; engines and their weights stay."""
    for shared in list(_devices.values()):
        with shared.lock:
            shared.workspace.clear()
            for even in shared.even:
                even.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
